import { type DynamicModule, Module } from '@nestjs/common';
import { ArtifactsModule } from './artifacts/artifacts.module.js';
import type { Config } from './config/config.js';
import { ConfigModule } from './config/config.module.js';
import { DatabaseModule } from './database/database.module.js';
import { HealthModule } from './health/health.module.js';
import { IdempotencyModule } from './idempotency/idempotency.module.js';
import { ImagesModule } from './images/images.module.js';
import { MetricsModule } from './metrics/metrics.module.js';
import { RemoteBuildNodesModule } from './remote-build-nodes/remote-build-nodes.module.js';
import { RecipesModule } from './recipes/recipes.module.js';
import { RelocationsModule } from './relocations/relocations.module.js';
import type { JobSurroundings } from './jobs/choose-launcher.js';
import { JobsModule } from './jobs/jobs.module.js';
import { PublicKeysModule } from './public-keys/public-keys.module.js';

@Module({})
export class AppModule {
  static with(config: Config, surroundings: JobSurroundings): DynamicModule {
    const jobs = JobsModule.with(surroundings);
    return {
      module: AppModule,
      imports: [
        ConfigModule.with(config),
        DatabaseModule,
        ArtifactsModule,
        IdempotencyModule,
        PublicKeysModule,
        RelocationsModule.with(surroundings.stateId),
        RecipesModule,
        RemoteBuildNodesModule,
        MetricsModule,
        ImagesModule,
        jobs,
        HealthModule.with(jobs),
      ],
    };
  }
}
