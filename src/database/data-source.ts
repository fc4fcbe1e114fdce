import type { DataSourceOptions } from 'typeorm';
import { migrations } from '../../migrations/index.js';
import { IdempotencyKey } from '../idempotency/idempotency-key.entity.js';
import { Image } from '../images/image.entity.js';
import { HeldRunner } from '../jobs/held-runner.entity.js';
import { JobEvent } from '../jobs/job-event.entity.js';
import { Job } from '../jobs/job.entity.js';
import { Recipe } from '../recipes/recipe.entity.js';
import { RecordArtifact } from '../relocations/record-artifact.entity.js';
import { Relocation } from '../relocations/relocation.entity.js';
import { RemoteBuildNode } from '../remote-build-nodes/remote-build-node.entity.js';
import { PublicKey } from '../public-keys/public-key.entity.js';

/** Options for the server, for migrations and for tests alike. */
export function dataSourceOptions(url: string, poolSize = 10): DataSourceOptions & { type: 'postgres' } {
  return {
    type: 'postgres',
    url,
    entities: [
      PublicKey,
      Recipe,
      Image,
      RecordArtifact,
      Relocation,
      RemoteBuildNode,
      Job,
      JobEvent,
      HeldRunner,
      IdempotencyKey,
    ],
    migrations,
    migrationsTransactionMode: 'each',
    synchronize: false,
    // gen_random_uuid() is part of PostgreSQL; an extension would need rights that sites do not give.
    uuidExtension: 'pgcrypto',
    installExtensions: false,
    poolSize,
    connectTimeoutMS: 5000,
    extra: { statement_timeout: 60_000, idle_in_transaction_session_timeout: 60_000 },
  };
}
