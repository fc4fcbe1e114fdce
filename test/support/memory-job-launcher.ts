import {
  type ConnectionInfo,
  JobLauncher,
  LaunchRefused,
  type Observation,
} from '../../src/jobs/launcher/job-launcher.js';
import type { JobSpec } from '../../src/protocol/job-spec.js';

/** What is kept of a job. */
interface MemoryJob {
  spec: JobSpec | null;
  observation: Observation;
  logs: Map<string, string>;
}

/** A launcher that runs nothing: tests say what becomes of a job. It passes the contract suite of launchers. */
export class MemoryJobLauncher extends JobLauncher {
  readonly jobs = new Map<string, MemoryJob>();
  private readonly addresses = new Map<string, number>();
  private readonly listeners: (() => void)[] = [];
  private stopped = false;
  /** How often each job was begun. */
  readonly launches = new Map<string, number>();
  /** What the next launches fail with, in order. */
  readonly failures: Error[] = [];

  constructor(
    private readonly maxRunning = Infinity,
    private readonly ports = { first: 20_000, last: 20_999 },
  ) {
    super();
  }

  /** Has a job end by itself. */
  finish(jobId: string, reason: string | null): void {
    this.jobs.get(jobId)!.observation =
      reason === null ? { state: 'ended', reason } : { state: 'ended', reason, code: 'container_exit' };
    for (const listener of this.listeners) listener();
  }

  /** Has a container print. */
  print(jobId: string, container: string, text: string): void {
    const { logs } = this.jobs.get(jobId)!;
    logs.set(container, (logs.get(container) ?? '') + text);
  }

  async address(jobId: string): Promise<ConnectionInfo> {
    const taken = new Set(this.addresses.values());
    const { first, last } = this.ports;
    const free = Array.from({ length: last - first + 1 }, (_, index) => first + index).find((port) => !taken.has(port));
    const port = this.addresses.get(jobId) ?? free;
    if (port === undefined) throw new LaunchRefused('all ports are in use: delete jobs that are not needed');
    this.addresses.set(jobId, port);
    return { customer_access: { host: '127.0.0.1', port }, 'cluster.local': { host: '127.0.0.1', port } };
  }

  async launch(spec: JobSpec): Promise<void> {
    const failure = this.failures.shift();
    if (failure) throw failure;
    if (this.stopped) throw new Error('the server stops');
    if (this.jobs.has(spec.job_id)) return;
    if (spec.shell) this.addresses.set(spec.job_id, spec.shell.port);
    this.launches.set(spec.job_id, (this.launches.get(spec.job_id) ?? 0) + 1);
    this.jobs.set(spec.job_id, { spec, observation: { state: 'running' }, logs: new Map() });
  }

  async observe(jobId: string): Promise<Observation> {
    return this.jobs.get(jobId)?.observation ?? { state: 'absent' };
  }

  async *log(jobId: string, container: string, from: number, follow: AbortSignal | null): AsyncGenerator<Buffer> {
    for (let offset = from; ; await new Promise((resolve) => setTimeout(resolve, 5))) {
      const goesOn = follow && !follow.aborted && (await this.observe(jobId)).state === 'running';
      const rest = Buffer.from(this.jobs.get(jobId)?.logs.get(container) ?? '').subarray(offset);
      offset += rest.length;
      if (rest.length) yield rest;
      if (!goesOn) return;
    }
  }

  async release(jobId: string): Promise<void> {
    this.addresses.delete(jobId);
    const job = this.jobs.get(jobId);
    if (job?.observation.state === 'running') job.observation = { state: 'ended', reason: null };
  }

  async remove(jobId: string): Promise<void> {
    this.addresses.delete(jobId);
    this.jobs.delete(jobId);
  }

  async list(): Promise<string[]> {
    return [...this.jobs.keys()];
  }

  async free(): Promise<number> {
    const running = [...this.jobs.values()].filter(({ observation }) => observation.state === 'running');
    return Math.max(0, this.maxRunning - running.length);
  }

  watch(listener: () => void): void {
    this.listeners.push(listener);
  }

  async stop(): Promise<void> {
    this.stopped = true;
    for (const job of this.jobs.values())
      if (job.observation.state === 'running')
        job.observation = { state: 'ended', reason: 'the server stopped', code: 'server_stopped' };
  }

  async ready(): Promise<void> {}
}
