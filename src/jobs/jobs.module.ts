import path from 'node:path';
import { type DynamicModule, Module } from '@nestjs/common';
import { getDataSourceToken, TypeOrmModule } from '@nestjs/typeorm';
import type { DataSource } from 'typeorm';
import type { Config } from '../config/config.js';
import { CONFIG } from '../config/config.module.js';
import { Image } from '../images/image.entity.js';
import { ImagesModule } from '../images/images.module.js';
import type { ArtifactLocation } from '../protocol/artifact-link.js';
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
import { JobLauncher } from './launcher/job-launcher.js';
import { OpenStreams } from './open-streams.js';
import { HeldRunner } from './held-runner.entity.js';
import { RunnerLease } from './runner-lease.js';
import { LocalJobLauncher } from './launcher/local/local-job-launcher.js';

/** What jobs need to know of the machine that the server runs on. */
export interface JobSurroundings {
  /** Names the state directory among all servers on a database. */
  stateId: string;
  /** The file that holds an artifact, where the store is on this machine. */
  findLocalFile(location: ArtifactLocation): Promise<string | null>;
}

/** The launcher that the configuration chooses. */
async function chooseLauncher(config: Config, surroundings: JobSurroundings): Promise<JobLauncher> {
  if (config.jobs.launcher === 'kubernetes')
    throw new Error(
      'JOB_LAUNCHER=kubernetes is not built yet: set JOB_LAUNCHER=local, which runs jobs on this machine',
    );
  return localLauncher(config, surroundings);
}

async function localLauncher(config: Config, surroundings: JobSurroundings): Promise<LocalJobLauncher> {
  const { local } = config.jobs;
  const launcher = new LocalJobLauncher({
    directory: path.join(config.stateDir, 'jobs'),
    workerMain: path.resolve(import.meta.dirname, '../worker/main.js'),
    workerEnvironment: {
      S3_ENDPOINT: config.s3.endpoint!,
      S3_ACCESS_KEY: config.s3.credentials!.accessKey,
      S3_SECRET_KEY: config.s3.credentials!.secretKey,
      S3_SSL_VALIDATE: String(config.s3.sslValidate),
      S3_REGION: config.s3.region,
      DISK_RESERVE_MIB: String(local.diskReserveMib),
    },
    ...local,
    findLocalFile: (location) => surroundings.findLocalFile(location),
  });
  await launcher.sweep();
  return launcher;
}

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
        { provide: RUNNER, useValue: `local:${surroundings.stateId}` },
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
      exports: [JobLauncher, JobReconciler],
    };
  }
}
