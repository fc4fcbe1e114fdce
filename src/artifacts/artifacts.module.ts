import { Global, Module } from '@nestjs/common';
import type { Config } from '../config/config.js';
import { CONFIG } from '../config/config.module.js';
import { ArtifactStore } from './artifact-store.js';
import { S3ArtifactStore } from './s3-artifact-store.js';

/** The artifact store of the configuration, for every module. */
@Global()
@Module({
  providers: [
    {
      provide: ArtifactStore,
      inject: [CONFIG],
      useFactory: ({ s3 }: Config) =>
        new S3ArtifactStore({
          endpoint: s3.endpoint!,
          ...s3.credentials!,
          sslValidate: s3.sslValidate,
          region: s3.region,
        }),
    },
  ],
  exports: [ArtifactStore],
})
export class ArtifactsModule {}
