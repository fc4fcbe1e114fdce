import { type DynamicModule, Module } from '@nestjs/common';
import { HealthController } from './health.controller.js';
import { HealthService } from './health.service.js';

/** Probes. */
@Module({})
export class HealthModule {
  /** @param jobs the module that provides the launcher */
  static with(jobs: DynamicModule): DynamicModule {
    return { module: HealthModule, imports: [jobs], controllers: [HealthController], providers: [HealthService] };
  }
}
