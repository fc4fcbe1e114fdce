import { NestFactory } from '@nestjs/core';
import type { NestFastifyApplication } from '@nestjs/platform-fastify';
import { AppModule } from './app.module.js';
import { describeApi } from './app.setup.js';
import { loadConfig } from './config/config.js';
import { fastifyAdapter } from './fastify.js';
import { VersioningType } from '@nestjs/common';

/** The OpenAPI document as text, made from the decorators alone: no provider is made, so no database, store or launcher is needed. */
export async function openApiText(): Promise<string> {
  const config = loadConfig({});
  const surroundings = { stateId: '', findLocalFile: () => Promise.resolve(null) };
  const app = await NestFactory.create<NestFastifyApplication>(
    AppModule.with(config, surroundings),
    fastifyAdapter(config),
    {
      preview: true,
      logger: false,
      abortOnError: false,
    },
  );
  app.enableVersioning({ type: VersioningType.URI });
  const document = describeApi(app);
  await app.close();
  return `${JSON.stringify(document, null, 2)}\n`;
}
