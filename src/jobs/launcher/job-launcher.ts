import type { JobSpec } from '../../protocol/job-spec.js';

/** Where the shell of a job can be reached; `host` is a name or an address. */
export interface SshAddress {
  host: string;
  port: number;
  /** The address outside of a cluster, once a balancer has given one; told in v3 only. */
  external_ip?: string;
}

/** The addresses of a job's shell, by the names that the API gives them. */
export type ConnectionInfo = Record<'customer_access' | 'cluster.local', SshAddress>;

/** What really runs of a job. */
export type Observation =
  /** Nothing of the job is there: it was never launched, or its parts are gone. */
  | { state: 'absent' }
  /**
   * `waits` says what it waits for where it has not begun. `externalIp` is known where clients reach the shell by an address of its own,
   * `secret` is the name of the Kubernetes Secret with signing keys that was made for it.
   */
  | { state: 'running'; waits?: string; externalIp?: string; secret?: string }
  /** It ended by itself. `reason` is a sentence for the job record where its end was not a good one. */
  | { state: 'ended'; reason: string | null };

/** The launcher cannot take this job; the message is a sentence for the job record that says what to change. Trying again does not help. */
export class LaunchRefused extends Error {
  constructor(message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = 'LaunchRefused';
  }
}

/** What was asked for has begun and takes its time: the same call goes on with it. The message says what is waited for. */
export class NotYet extends Error {
  constructor(message: string) {
    super(message);
    this.name = 'NotYet';
  }
}

/**
 * Runs the phases of jobs somewhere. A launcher knows no phase: it starts a worker process for each, in the order of the job's plan, and
 * keeps what they need. Callers repeat a call that failed; every method is safe to repeat.
 */
export abstract class JobLauncher {
  /**
   * The addresses that the shell of this job will have, known before it is launched and kept for it until it is released or removed.
   * Rejects with LaunchRefused where no address is free.
   */
  abstract address(jobId: string): Promise<ConnectionInfo>;
  /**
   * Starts a job and returns when its parts exist, not when they have ended. Repeated for a job that is there already, it changes
   * nothing. Where it fails it has removed what it made: LaunchRefused for good, any other error means that a later try may work.
   */
  abstract launch(spec: JobSpec): Promise<void>;
  /** What runs of a job now. */
  abstract observe(jobId: string): Promise<Observation>;
  /**
   * What a container of the job printed, after so many bytes. With `follow` it goes on while the job runs, until that is aborted; without,
   * it ends with what is there. Where nothing was printed, or the container is not known, it is empty.
   */
  abstract log(jobId: string, container: string, from: number, follow: AbortSignal | null): AsyncIterable<Buffer>;
  /** Gives back what is scarce (the address, disk space), keeping what tells of the job (its logs). Ends what still runs. */
  abstract release(jobId: string): Promise<void>;
  /**
   * Removes every trace. Missing parts are not errors. Ends what still runs, at once. Rejects with NotYet where something is still there after
   * a few seconds, as with a node that does not answer.
   */
  abstract remove(jobId: string): Promise<void>;
  /** Ids of all jobs of which any part is there. */
  abstract list(): Promise<string[]>;
  /** How many more jobs may be launched now. */
  abstract free(): Promise<number>;
  /** Calls the listener whenever something may have changed, so that nobody needs to look often. One listener; it may be called for nothing. */
  abstract watch(listener: () => void): void;
  /** The server stops: ends what cannot run without it. A launch afterwards rejects, so that a later server tries again. */
  abstract stop(): Promise<void>;
  /** Resolves where jobs can run; rejects with a sentence that says what is missing and how to get it. */
  abstract ready(): Promise<void>;
}
