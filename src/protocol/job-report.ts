import type { JobStatus } from './job-status.js';
import type { StatusCode } from './status-codes.js';

/** Header with the token of a job, by which a worker shows which job it works for: `<job id>.<token>`. */
export const JOB_TOKEN_HEADER = 'ims-job-token';

/** A public host key of a job's sshd. */
export interface HostKey {
  /** As `ssh-ed25519`. */
  type: string;
  /** Base64, as in a known_hosts line. */
  key: string;
  /** `SHA256:…`, as ssh prints it. */
  fingerprint: string;
}

/** How far the running stage of a phase is. */
export interface JobProgress {
  /** What is being done, in a few words, as `download` or `pack`. */
  stage: string;
  /** Bytes done; null where it cannot be known. */
  done: number | null;
  /** Bytes in all; null where it cannot be known. */
  total: number | null;
}

/** `delta`: blocks of the source were reused; `full`: everything was compressed. */
export const PACKING_METHODS = ['delta', 'full'] as const;

/** What packing the new image took. */
export interface PackingReport {
  method: (typeof PACKING_METHODS)[number];
  /** Bytes of the new image, without padding. */
  bytes: number;
  /** Bytes that were taken from the source as they were. */
  bytes_reused: number;
  /** All other bytes: what was compressed anew, and metadata. */
  bytes_new: number;
  /** Seconds by stage of the packing. */
  seconds: Record<string, number>;
}

/** What a worker tells the server of its job, as the body of `PATCH /v3/jobs/{id}`. Every member is optional. */
export interface JobReport {
  status?: JobStatus;
  resultant_image_id?: string;
  /** Why the job ended, or waits: one or two sentences that say what to change. */
  status_reason?: string;
  /** The same for programs; sent with a reason only. */
  status_code?: StatusCode;
  progress?: JobProgress | null;
  packing?: PackingReport;
  /** Public keys that the shell of the job answers with. Sent before or with `waiting_on_user`. */
  host_keys?: HostKey[];
  /** The port that the shell really got, where the planned one was taken. */
  ssh_port?: number;
}
