import { LaunchRefused } from '../job-launcher.js';
import { KubeFailure } from './kube-client.js';

/** Tells launches that may still work from those that are given up. */
export class LaunchFailures {
  /** Since when (Unix time, ms) launches of a job fail though the API server answers, by the job's id. */
  private readonly since = new Map<string, number>();

  /** @param pendingSeconds for which a launch is tried that the API server does not refuse for good */
  constructor(
    private readonly namespace: string,
    private readonly pendingSeconds: number,
  ) {}

  /** Why a launch that failed is not tried again; null where it is. For an API server that is away, a job waits as long as it takes. */
  refusalAfter(error: unknown, jobId: string): LaunchRefused | null {
    if (error instanceof LaunchRefused) return error;
    const isOver = this.isOver(error, jobId);
    const sentence = finalSentence(error, this.namespace) ?? (isOver ? this.lateSentence(error) : null);
    return sentence === null ? null : new LaunchRefused(sentence, { cause: error });
  }

  /** A launch has worked, or nobody wants it any more. */
  forget(jobId: string): void {
    this.since.delete(jobId);
  }

  /** Whether the launches of a job have failed for too long. */
  private isOver(error: unknown, jobId: string): boolean {
    if (isAway(error)) this.since.delete(jobId);
    else this.since.set(jobId, this.since.get(jobId) ?? Date.now());
    return Date.now() - (this.since.get(jobId) ?? Date.now()) > this.pendingSeconds * 1000;
  }

  private lateSentence(error: unknown): string {
    return `Kubernetes has not taken the job for ${this.pendingSeconds} seconds (JOB_PENDING_SECONDS); the last answer was ${said(error)}. ${whatToCheck(this.namespace)}`;
  }
}

/** What to say where another try cannot change anything: the request is wrong, or is not allowed. */
function finalSentence(error: unknown, namespace: string): string | null {
  if (!(error instanceof KubeFailure) || error.status === null) return null;
  if (error.status === 404 && error.message.startsWith('namespaces '))
    return `there is no namespace for jobs (${said(error)}): make it, or set DEFAULT_IMS_JOB_NAMESPACE to one that is there`;
  if (![400, 403, 413, 422].includes(error.status)) return null;
  return `Kubernetes refuses the job (${said(error)}). ${whatToCheck(namespace)}`;
}

function whatToCheck(namespace: string): string {
  return `Check the role of the server's service account, the quotas and admission rules of the namespace ${namespace} (DEFAULT_IMS_JOB_NAMESPACE), and JOB_POD_SETTINGS`;
}

function said(error: unknown): string {
  const { message } = error as Error;
  return error instanceof KubeFailure && error.status !== null ? `${error.status}: ${message}` : message;
}

/** No answer, or one that says that the API server has no time, or that a gateway finds none. */
function isAway(error: unknown): boolean {
  return error instanceof KubeFailure && (error.status === null || [429, 502, 503, 504].includes(error.status));
}
