import { Inject, Injectable } from '@nestjs/common';
import { DataSource } from 'typeorm';
import { ArtifactStore } from '../artifacts/artifact-store.js';
import type { Config } from '../config/config.js';
import { CONFIG } from '../config/config.module.js';
import { problems } from '../errors/problems.js';
import { JobLauncher } from '../jobs/launcher/job-launcher.js';

/** Milliseconds that a part has to answer. */
const PATIENCE = 5000;

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
export class HealthService {
  constructor(
    private readonly database: DataSource,
    private readonly store: ArtifactStore,
    private readonly launcher: JobLauncher,
    @Inject(CONFIG) private readonly config: Config,
  ) {}

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
