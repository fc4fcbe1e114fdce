import type { HostKey, JobProgress, PackingReport } from '../protocol/job-report.js';
import type { JobStatus } from '../protocol/job-status.js';

/** What the quickstart reads of a job. */
export interface JobView {
  id: string;
  status: JobStatus;
  status_reason: string | null;
  progress: JobProgress | null;
  packing: PackingReport | null;
  resultant_image_id: string | null;
  shell_deadline: string | null;
  shell_idle_seconds: number | null;
  image_root_archive_name: string;
  arch: string;
  kubernetes_secret: string | null;
  ssh_containers:
    | {
        jail: boolean;
        connection_info: { customer_access: { host: string; port: number; external_ip?: string } };
        host_keys?: HostKey[];
      }[]
    | null;
}

/** A client of the API, as small as the quickstart needs it. */
export class Api {
  constructor(private readonly url: string) {}

  /** @throws Error with the problem's detail */
  async request<T>(method: string, path: string, body?: object): Promise<T> {
    const response = await fetch(`${this.url}/v3${path}`, {
      method,
      ...(body && { headers: { 'content-type': 'application/json' }, body: JSON.stringify(body) }),
    });
    const text = await response.text();
    const answer = text ? (JSON.parse(text) as unknown) : undefined;
    if (!response.ok)
      throw new Error(`${method} ${path}: ${(answer as { detail?: string } | undefined)?.detail ?? response.status}`);
    return answer as T;
  }

  jobs(): Promise<JobView[]> {
    return this.request('GET', '/jobs');
  }

  job(id: string): Promise<JobView> {
    return this.request('GET', `/jobs/${id}`);
  }

  /** Looks at a job until its status is the wanted one. */
  async waitFor(id: string, status: JobStatus, seconds = 120): Promise<JobView> {
    const deadline = Date.now() + seconds * 1000;
    for (;;) {
      const job = await this.job(id);
      if (job.status === status) return job;
      if (job.status === 'error' || job.status === 'success' || Date.now() > deadline)
        throw new Error(
          `the job is ${job.status} where ${status} was expected: ${job.status_reason ?? 'no reason given'}`,
        );
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  }
}
