import type { JobType } from '../../protocol/job-status.js';
import type { PhaseName } from '../../protocol/job-spec.js';

/** The container that a phase runs in, as operators know it from the original; where there are no containers, the name of its log. */
export const CONTAINER_OF_PHASE = {
  'fetch-image': 'prepare',
  shell: 'sshd',
  finish: 'buildenv-sidecar',
} as const satisfies Record<PhaseName, string>;

/** Phases of each type of job, in the order in which they begin. */
const PHASES_OF: Record<JobType, readonly PhaseName[]> = {
  customize: ['fetch-image', 'shell', 'finish'],
  create: [],
};

/** The containers of a job that print a log, in the order in which they begin. */
export function containersOf(jobType: JobType): string[] {
  return PHASES_OF[jobType].map((phase) => CONTAINER_OF_PHASE[phase]);
}
