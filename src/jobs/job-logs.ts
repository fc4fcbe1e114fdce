import { buffer } from 'node:stream/consumers';
import { Inject, Injectable } from '@nestjs/common';
import { ArtifactStore, NoSuchArtifact } from '../artifacts/artifact-store.js';
import type { Config } from '../config/config.js';
import { CONFIG } from '../config/config.module.js';
import type { Job } from './job.entity.js';
import { containersOf } from './launcher/container-names.js';
import type { ArtifactLocation } from '../protocol/artifact-link.js';
import { JobLauncher } from './launcher/job-launcher.js';

/** Milliseconds after the end of a job in which its logs can be read, or are given up: nothing else is to wait for a node that is gone. */
const PATIENCE = 120_000;
const UNREADABLE = 'This log could not be read when the job had ended. The log of the server tells why.\n';

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

  /** Keeps the logs of a job that has ended. Safe to repeat. Rejects where one cannot be read yet: the others are kept then. */
  async keep(job: Job): Promise<void> {
    const results = await Promise.allSettled(containersOf(job).map((container) => this.keepLog(job, container)));
    const failure = results.find((result) => result.status === 'rejected');
    if (failure) throw failure.reason;
  }

  private async keepLog(job: Job, container: string): Promise<void> {
    const location = this.locationOf(job.id, container);
    const body = await buffer(this.launcher.log(job.id, container, 0, null)).catch(async (error: unknown) => {
      if (Date.now() - job.ended!.getTime() < PATIENCE) throw error;
      // It may have been kept by an earlier try.
      return (await this.isKept(location)) ? Buffer.alloc(0) : Buffer.from(UNREADABLE);
    });
    if (body.length) await this.store.put(location, { body, contentType: 'text/plain; charset=utf-8' });
  }

  private async isKept(location: ArtifactLocation): Promise<boolean> {
    return this.store.head(location).then(
      () => true,
      (error: unknown) => {
        if (error instanceof NoSuchArtifact) return false;
        throw error;
      },
    );
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

  private locationOf(jobId: string, container: string): ArtifactLocation {
    return { bucket: this.config.s3.imsBucket, key: `jobs/${jobId}/logs/${container && `${container}.log`}` };
  }
}
