import { Inject, Injectable } from '@nestjs/common';
import { DataSource } from 'typeorm';
import { ArtifactStore } from '../artifacts/artifact-store.js';
import type { Config } from '../config/config.js';
import { CONFIG } from '../config/config.module.js';
import { problems } from '../errors/problems.js';
import { JobLauncher } from '../jobs/launcher/job-launcher.js';

/** Milliseconds that a part has to answer. */
const PATIENCE = 5000;

/** Rejects where a part is silent for too long: a probe must answer. */
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

  /** @throws Problem (503) that names each part that does not work */
  async ready(): Promise<Record<string, never>> {
    const { imsBucket, bootImagesBucket } = this.config.s3;
    const mistakes = await Promise.all([
      inTime(
        'database',
        this.database.query('SELECT 1').catch(() => Promise.reject(new Error('it cannot be reached'))),
      ),
      inTime('artifact store', this.store.ready([imsBucket, bootImagesBucket])),
      inTime('job launcher', this.launcher.ready()),
    ]);
    const faults = mistakes.filter((mistake) => mistake !== null);
    if (faults.length) throw problems.notReady(faults.join('; '));
    return {};
  }
}
