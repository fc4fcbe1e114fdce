import type { Arch } from '../protocol/arch.js';
import type { ArtifactLink } from '../protocol/artifact-link.js';
import { JOB_TOKEN_HEADER, type JobProgress, type JobReport } from '../protocol/job-report.js';
import { isTerminal, type JobStatus } from '../protocol/job-status.js';
import { tellableReason } from './tellable-reason.js';

/** What registers an image that a job is making. */
export interface NewImage {
  name: string;
  arch: Arch;
  job_id: string;
  /** What the image was built from, where it was. */
  recipe?: { id: string; name: string; etag: string };
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
  /** Tells of the job, and resolves with its record. A reason is told as far as a record can hold it (tellableReason). */
  abstract report(report: JobReport): Promise<ServerRecord>;
  /** Tells how far the job is. One try: a report that gets lost is no error, the next one replaces it. Rejects with JobIsOver only. */
  abstract reportProgress(progress: JobProgress): Promise<void>;
  /** The job's record as it is now; null where the server cannot be asked just now. One try. Rejects with JobIsOver only. */
  abstract lookAtJob(): Promise<ServerRecord | null>;
  /** Registers an image without a link. Asked again, the server answers the record that it made before. */
  abstract createImage(image: NewImage): Promise<ServerRecord>;
  /** Completes an image by the link of its manifest. */
  abstract linkImage(id: string, link: ArtifactLink): Promise<ServerRecord>;
}

export interface HttpImsClientOptions {
  /** Base url of the server, as the job's specification gives it. */
  serverUrl: string;
  jobId: string;
  /** The token of the job; null where it has none. */
  token?: string | null;
  /** Milliseconds for which a request is repeated; ten minutes by default, in which a server is replaced by a new version. */
  deadline?: number;
  /** Milliseconds before the first repetition; doubled for each further one up to ten seconds. */
  pause?: number;
}

/** Milliseconds that one try gets. */
const TRY_TIMEOUT = 30_000;
const LONGEST_PAUSE = 10_000;
/** What a gateway or a starting server answers: the request did not get through. */
const TRY_AGAIN = new Set([502, 503, 504]);
/** Answers about a job that has ended (409), or whose record is gone (404, 410) and its token with it (401). */
const OVER = new Set([401, 404, 409, 410]);

const after = (milliseconds: number) => new Promise((resolve) => setTimeout(resolve, milliseconds));

/** The server's sentence about what was wrong with a request. */
async function problemOf(response: Response): Promise<string> {
  const body = (await response.json().catch(() => null)) as { detail?: unknown } | null;
  return typeof body?.detail === 'string' ? body.detail : response.statusText;
}

/** The server, by its API v3. */
export class HttpImsClient extends ImsClient {
  private readonly deadline: number;
  private readonly pause: number;
  private readonly job: string;

  constructor(private readonly options: HttpImsClientOptions) {
    super();
    this.deadline = options.deadline ?? 600_000;
    this.pause = options.pause ?? 250;
    this.job = `/v3/jobs/${options.jobId}`;
  }

  override async report(report: JobReport): Promise<ServerRecord> {
    const { status_reason: reason } = report;
    const body = reason === undefined ? report : { ...report, status_reason: tellableReason(reason) };
    const record = await this.askOfJob(() => this.ask('PATCH', this.job, body));
    // A job that has ended takes a report without a status silently.
    if (isTerminal(record['status'] as JobStatus) && record['status'] !== report.status) throw new JobIsOver();
    return record;
  }

  override async reportProgress(progress: JobProgress): Promise<void> {
    await this.askOfJob(() => this.tryOnce('PATCH', this.job, { progress }))
      .then(refuseEnded)
      .catch((error: unknown) => {
        if (error instanceof JobIsOver) throw error;
      });
  }

  override async lookAtJob(): Promise<ServerRecord | null> {
    return this.askOfJob(() => this.tryOnce('GET', this.job)).then(
      (record) => {
        refuseEnded(record);
        return record;
      },
      (error: unknown) => {
        if (error instanceof JobIsOver) throw error;
        return null;
      },
    );
  }

  override createImage(image: NewImage): Promise<ServerRecord> {
    return this.ask('POST', '/v3/images', image);
  }

  override linkImage(id: string, link: ArtifactLink): Promise<ServerRecord> {
    return this.ask('PATCH', `/v3/images/${id}`, { link });
  }

  private async askOfJob(ask: () => Promise<ServerRecord>): Promise<ServerRecord> {
    return ask().catch((error: unknown) => {
      throw error instanceof ImsRefused && OVER.has(error.status) ? new JobIsOver({ cause: error }) : error;
    });
  }

  private async ask(method: string, path: string, body?: object): Promise<ServerRecord> {
    const end = Date.now() + this.deadline;
    for (let pause = this.pause; ; pause = Math.min(2 * pause, LONGEST_PAUSE)) {
      try {
        return await this.tryOnce(method, path, body);
      } catch (error) {
        if (!(error instanceof ImsUnreachable) || Date.now() + pause > end) throw error;
      }
      await after(pause);
    }
  }

  private headers(hasBody: boolean): Record<string, string> {
    const { jobId, token } = this.options;
    return {
      ...(hasBody && { 'content-type': 'application/json' }),
      ...(token && { [JOB_TOKEN_HEADER]: `${jobId}.${token}` }),
    };
  }

  private async tryOnce(method: string, path: string, body?: object): Promise<ServerRecord> {
    const response = await fetch(`${this.options.serverUrl}${path}`, {
      method,
      signal: AbortSignal.timeout(TRY_TIMEOUT),
      redirect: 'error',
      headers: this.headers(body !== undefined),
      ...(body && { body: JSON.stringify(body) }),
    }).catch((error: unknown) => {
      throw new ImsUnreachable('the IMS server cannot be reached', { cause: error });
    });
    if (TRY_AGAIN.has(response.status)) throw new ImsUnreachable(`the IMS server answered ${response.status}`);
    if (!response.ok) throw new ImsRefused(response.status, await problemOf(response));
    return (await response.json().catch((error: unknown) => {
      throw new ImsUnreachable('the answer of the IMS server was cut off', { cause: error });
    })) as ServerRecord;
  }
}

function refuseEnded(record: ServerRecord): void {
  if (isTerminal(record['status'] as JobStatus)) throw new JobIsOver();
}
