import { Inject, Injectable, Logger, type OnApplicationBootstrap, type OnApplicationShutdown } from '@nestjs/common';
import { DataSource } from 'typeorm';
import { ArtifactStore } from '../artifacts/artifact-store.js';
import type { Config } from '../config/config.js';
import { CONFIG } from '../config/config.module.js';
import { problems } from '../errors/problems.js';
import { JobLauncher } from '../jobs/launcher/job-launcher.js';

/** Milliseconds that a part has to answer. */
const PATIENCE = 5000;

/** Milliseconds between two looks of a server that has not been ready yet. */
const INTERVAL = 10_000;

/** What is wrong with a part, or null. Silence for too long is a fault: a probe must answer. */
async function inTime(part: string, answer: Promise<unknown>): Promise<string | null> {
  let timer: NodeJS.Timeout | undefined;
  const silence = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`it did not answer within ${PATIENCE / 1000} s`)), PATIENCE);
  });
  return Promise.race([answer, silence])
    .then(() => null)
    .catch((error: Error) => `${part}: ${error.message}`)
    .finally(() => clearTimeout(timer));
}

/** Whether the parts work that the service needs. */
@Injectable()
export class HealthService implements OnApplicationBootstrap, OnApplicationShutdown {
  private readonly log = new Logger(HealthService.name);
  private timer: NodeJS.Timeout | undefined;
  private isStopped = false;
  /** What was told last. */
  private told = '';

  constructor(
    private readonly database: DataSource,
    private readonly store: ArtifactStore,
    private readonly launcher: JobLauncher,
    @Inject(CONFIG) private readonly config: Config,
  ) {}

  /** Does not wait: probes need not ask for more than `serving`, but the store is to have its buckets, and the log to tell what is missing. */
  onApplicationBootstrap(): void {
    void this.becomeReady();
  }

  onApplicationShutdown(): void {
    this.isStopped = true;
    clearTimeout(this.timer);
  }

  private async becomeReady(): Promise<void> {
    try {
      await this.ready();
    } catch (error) {
      if (this.isStopped) return;
      const { message } = error as Error;
      if (message !== this.told) this.log.warn(message);
      this.told = message;
      this.timer = setTimeout(() => void this.becomeReady(), INTERVAL).unref();
    }
  }

  /**
   * Whether requests can be answered at all. Records can be read and jobs report also while store and launcher are away: a probe that took all
   * servers from their service then would take that too.
   * @throws Problem (503) where the database does not work
   */
  serving(): Promise<Record<string, never>> {
    return this.expect(this.databaseFault());
  }

  /** @throws Problem (503) that names each part that does not work */
  ready(): Promise<Record<string, never>> {
    const { imsBucket, bootImagesBucket } = this.config.s3;
    return this.expect(
      this.databaseFault(),
      inTime('artifact store', this.store.ready([imsBucket, bootImagesBucket])),
      inTime('job launcher', this.launcher.ready()),
    );
  }

  private databaseFault(): Promise<string | null> {
    const answer = this.database.query('SELECT 1').catch(() => Promise.reject(new Error('it cannot be reached')));
    return inTime('database', answer);
  }

  private async expect(...parts: Promise<string | null>[]): Promise<Record<string, never>> {
    const faults = (await Promise.all(parts)).filter((fault) => fault !== null);
    if (faults.length) throw problems.notReady(faults.join('; '));
    return {};
  }
}
