/** Every status that a job can have, in the order in which a job may pass through them. */
export const JOB_STATUSES = [
  'creating',
  'fetching_image',
  'fetching_recipe',
  'waiting_for_repos',
  'building_image',
  'packaging_artifacts',
  'waiting_on_user',
  'error',
  'success',
] as const;
export type JobStatus = (typeof JOB_STATUSES)[number];

/** Statuses that a job never leaves. */
export const TERMINAL_STATUSES = ['error', 'success'] as const satisfies readonly JobStatus[];

/** Whether a job of this status has ended. */
export function isTerminal(status: JobStatus): boolean {
  return (TERMINAL_STATUSES as readonly JobStatus[]).includes(status);
}

export const JOB_TYPES = ['create', 'customize'] as const;
export type JobType = (typeof JOB_TYPES)[number];
