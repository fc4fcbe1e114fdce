import type { JobSpec, PhaseName } from '../../protocol/job-spec.js';

/** The phases of a job: those of a row run side by side, the rows one after the other. */
export type PhasePlan = readonly (readonly PhaseName[])[];

/** Plans the phases of a job. */
export function planPhases(spec: JobSpec): PhasePlan {
  if (spec.job_type === 'customize') return [['fetch-image'], ['shell', 'finish']];
  const build: PhasePlan = [['fetch-recipe'], ['wait-for-repos'], ['build-ca-rpm'], ['build-image']];
  return [...build, spec.shell ? ['shell', 'finish'] : ['finish']];
}
