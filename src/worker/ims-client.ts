import type { Arch } from '../protocol/arch.js';
import type { ArtifactLink } from '../protocol/artifact-link.js';
import type { JobProgress, JobReport } from '../protocol/job-report.js';

/** What registers an image that a job is making. */
export interface NewImage {
  name: string;
  arch: Arch;
  job_id: string;
}

/** A record as the server answers it; members that the worker does not read are handed on as they are. */
export interface ServerRecord extends Readonly<Record<string, unknown>> {
  id: string;
}

/** The job has ended or was deleted meanwhile: there is nothing left to do and nobody to tell. */
export class JobIsOver extends Error {
  constructor(options?: ErrorOptions) {
    super('the job has ended or was deleted', options);
    this.name = 'JobIsOver';
  }
}

/** The server refused what the worker asked for. */
export class ImsRefused extends Error {
  constructor(
    /** HTTP status. */
    readonly status: number,
    message: string,
  ) {
    super(message);
    this.name = 'ImsRefused';
  }
}

/** The server did not answer until the deadline. Whether it did what it was asked for is not known. */
export class ImsUnreachable extends Error {
  constructor(message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = 'ImsUnreachable';
  }
}

/**
 * What a worker asks of the server. All requests are safe to repeat, and are repeated while the server cannot be reached or says that it
 * will soon be back, until a deadline.
 *
 * All methods reject with ImsRefused and ImsUnreachable; those on the job with JobIsOver besides.
 */
export abstract class ImsClient {
  /** Tells of the job, and resolves with its record. */
  abstract report(report: JobReport): Promise<ServerRecord>;
  /** Tells how far the job is. One try: a report that gets lost is no error, the next one replaces it. Rejects with JobIsOver only. */
  abstract reportProgress(progress: JobProgress): Promise<void>;
  /** Rejects with JobIsOver where the job has ended or is deleted. */
  abstract checkAlive(): Promise<void>;
  /** Registers an image without a link. Asked again, the server answers the record that it made before. */
  abstract createImage(image: NewImage): Promise<ServerRecord>;
  /** Completes an image by the link of its manifest. */
  abstract linkImage(id: string, link: ArtifactLink): Promise<ServerRecord>;
}
