import type { Config } from '../../src/config/config.js';
import { type ConnectionInfo, JobLauncher, type Observation } from '../../src/jobs/launcher/job-launcher.js';
import type { JobSpec } from '../../src/protocol/job-spec.js';

/** A launcher that takes every job and runs none: for tests of records. Addresses are those of the original. */
export class IdleJobLauncher extends JobLauncher {
  readonly launched = new Map<string, JobSpec>();

  constructor(private readonly jobs: Pick<Config['jobs'], 'customerAccess' | 'namespace'>) {
    super();
  }

  async address(jobId: string): Promise<ConnectionInfo> {
    const { customerAccess, namespace } = this.jobs;
    return {
      customer_access: { host: `${jobId}.ims.${customerAccess.subnet}.${customerAccess.domain}`, port: 22 },
      'cluster.local': { host: `cray-ims-${jobId}-service.${namespace}.svc.cluster.local`, port: 22 },
    };
  }

  async launch(spec: JobSpec): Promise<void> {
    this.launched.set(spec.job_id, spec);
  }

  async observe(jobId: string): Promise<Observation> {
    return this.launched.has(jobId) ? { state: 'running' } : { state: 'absent' };
  }

  async *log(): AsyncGenerator<Buffer> {}

  async release(): Promise<void> {}

  async remove(jobId: string): Promise<void> {
    this.launched.delete(jobId);
  }

  async list(): Promise<string[]> {
    return [...this.launched.keys()];
  }

  async free(): Promise<number> {
    return 0;
  }

  watch(): void {}

  async stop(): Promise<void> {}

  async ready(): Promise<void> {}
}
