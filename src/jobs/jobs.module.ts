import { type DynamicModule, Module } from '@nestjs/common';
import { getDataSourceToken, TypeOrmModule } from '@nestjs/typeorm';
import type { DataSource } from 'typeorm';
import type { Config } from '../config/config.js';
import { CONFIG } from '../config/config.module.js';
import { Image } from '../images/image.entity.js';
import { ImagesModule } from '../images/images.module.js';
import { PublicKeysModule } from '../public-keys/public-keys.module.js';
import { Recipe } from '../recipes/recipe.entity.js';
import { HalfMadeImages } from './half-made-images.js';
import { JobEvent } from './job-event.entity.js';
import { JobEvents } from './job-events.js';
import { JobLogs } from './job-logs.js';
import { JobStreamsController } from './job-streams.controller.js';
import { JobStreams } from './job-streams.service.js';
import { Job } from './job.entity.js';
import { JobReconciler, RUNNER } from './job-reconciler.js';
import { JobSources } from './job-sources.js';
import { JobsController } from './jobs.controller.js';
import { JobsService } from './jobs.service.js';
import { chooseLauncher, type JobSurroundings, runnerOf } from './choose-launcher.js';
import { JobLauncher } from './launcher/job-launcher.js';
import { OpenStreams } from './open-streams.js';
import { HeldRunner } from './held-runner.entity.js';
import { RunnerLease } from './runner-lease.js';
import { WorkerAccess } from './worker-access.js';

/** Jobs, and the launcher that the configuration chooses. */
@Module({})
export class JobsModule {
  static with(surroundings: JobSurroundings): DynamicModule {
    return {
      module: JobsModule,
      imports: [TypeOrmModule.forFeature([Job, JobEvent, HeldRunner, Image, Recipe]), PublicKeysModule, ImagesModule],
      controllers: [JobsController, JobStreamsController],
      providers: [
        JobsService,
        JobSources,
        JobReconciler,
        HalfMadeImages,
        JobLogs,
        JobEvents,
        JobStreams,
        OpenStreams,
        WorkerAccess,
        {
          provide: RUNNER,
          inject: [CONFIG],
          useFactory: (config: Config) => runnerOf(config, surroundings),
        },
        {
          provide: RunnerLease,
          inject: [getDataSourceToken(), RUNNER],
          useFactory: (database: DataSource, runner: string) => new RunnerLease(database, runner, surroundings.stateId),
        },
        {
          provide: JobLauncher,
          inject: [CONFIG],
          useFactory: (config: Config) => chooseLauncher(config, surroundings),
        },
      ],
      exports: [JobLauncher, JobReconciler, WorkerAccess],
    };
  }
}
