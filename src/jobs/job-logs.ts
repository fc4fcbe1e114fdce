import { buffer } from 'node:stream/consumers';
import { Inject, Injectable } from '@nestjs/common';
import { ArtifactStore, NoSuchArtifact } from '../artifacts/artifact-store.js';
import type { Config } from '../config/config.js';
import { CONFIG } from '../config/config.module.js';
import type { Job } from './job.entity.js';
import { containersOf } from './launcher/container-names.js';
import { JobLauncher } from './launcher/job-launcher.js';

/** What the containers of jobs print: read where they run, and kept in the artifact store when they have ended. */
@Injectable()
export class JobLogs {
  constructor(
    private readonly launcher: JobLauncher,
    private readonly store: ArtifactStore,
    @Inject(CONFIG) private readonly config: Config,
  ) {}

  /**
   * What a container printed.
   * @param from bytes to leave out
   * @param follow goes on while the job runs, until it is aborted; null ends with what is there
   */
  async *read(job: Job, container: string, from: number, follow: AbortSignal | null): AsyncGenerator<Buffer> {
    if (job.released) yield* this.readKept(job.id, container, from);
    else yield* this.launcher.log(job.id, container, from, follow);
  }

  /** Keeps the logs of a job that has ended. Safe to repeat. */
  async keep(job: Job): Promise<void> {
    for (const container of containersOf(job)) {
      const body = await buffer(this.launcher.log(job.id, container, 0, null));
      if (body.length)
        await this.store.put(this.locationOf(job.id, container), { body, contentType: 'text/plain; charset=utf-8' });
    }
  }

  /** Removes the logs of a deleted job. Safe to repeat. */
  async remove(jobId: string): Promise<void> {
    const { bucket, key } = this.locationOf(jobId, '');
    for await (const stored of this.store.list(bucket, key)) await this.store.remove({ bucket, key: stored.key });
  }

  private async *readKept(jobId: string, container: string, from: number): AsyncGenerator<Buffer> {
    const location = this.locationOf(jobId, container);
    try {
      const { size } = await this.store.head(location);
      if (from < size) yield* await this.store.read(location, { start: from, end: size - 1 });
    } catch (error) {
      // A container that never ran has no log.
      if (!(error instanceof NoSuchArtifact)) throw error;
    }
  }

  private locationOf(jobId: string, container: string) {
    return { bucket: this.config.s3.imsBucket, key: `jobs/${jobId}/logs/${container && `${container}.log`}` };
  }
}
