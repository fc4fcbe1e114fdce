import type { PhaseName } from '../../protocol/job-spec.js';
import type { JobType } from '../../protocol/job-status.js';

/** The container that a phase runs in, as operators know it from the original; where there are no containers, the name of its log. */
export const CONTAINER_OF_PHASE = {
  'fetch-image': 'prepare',
  'fetch-recipe': 'fetch-recipe',
  'wait-for-repos': 'wait-for-repos',
  'build-ca-rpm': 'build-ca-rpm',
  'build-image': 'build-image',
  shell: 'sshd',
  finish: 'buildenv-sidecar',
} as const satisfies Record<PhaseName, string>;

/** Phases of each type of job, in the order in which they begin. */
const PHASES_OF: Record<JobType, readonly PhaseName[]> = {
  customize: ['fetch-image', 'shell', 'finish'],
  create: ['fetch-recipe', 'wait-for-repos', 'build-ca-rpm', 'build-image', 'finish'],
};

/** The containers of a job that print a log, in the order in which they begin. */
export function containersOf({ job_type, enable_debug }: { job_type: JobType; enable_debug: boolean }): string[] {
  const phases = PHASES_OF[job_type];
  const withShell: readonly PhaseName[] = enable_debug && !phases.includes('shell') ? [...phases, 'shell'] : phases;
  return withShell.map((phase) => CONTAINER_OF_PHASE[phase]);
}
