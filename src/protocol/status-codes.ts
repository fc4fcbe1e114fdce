/** Why a job waits or has ended, for programs; its `status_reason` tells people the same, and what to change. What waited in vain ends with the code of what it waited for. */
export const STATUS_CODES = [
  // Before anything runs.
  'no_room',
  'launch_failing',
  'refused',
  'no_pod',
  'suspended',
  'unschedulable',
  'disk_pending',
  'node_preparing',
  'image_pull',
  'container_start',
  // What ended by force.
  'out_of_memory',
  'container_exit',
  'evicted',
  'preempted',
  'node_lost',
  'pod_deadline',
  'pod_deleted',
  'pod_failed',
  'gone',
  'server_stopped',
  // What the worker found out.
  'source',
  'repositories',
  'build',
  'shell_failed',
  'shell_deadline',
  'shell_idle',
  'packaging',
  'disk_full',
  'artifact_store',
  'unknown',
] as const;
export type StatusCode = (typeof STATUS_CODES)[number];
