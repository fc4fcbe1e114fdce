import 'reflect-metadata';
import { NestFactory } from '@nestjs/core';
import type { NestFastifyApplication } from '@nestjs/platform-fastify';
import { AppModule } from './app.module.js';
import { configureApp } from './app.setup.js';
import { BadConfiguration, type Config, loadConfig } from './config/config.js';
import { startEmbedded } from './embedded/start.js';
import { fastifyAdapter } from './fastify.js';
import { JobReconciler } from './jobs/job-reconciler.js';
import { Logger } from './logger.js';

/** Where workers on this machine reach a server that listens there. */
function localUrl({ listenAddress }: Config, port: number): string {
  const host =
    { '0.0.0.0': '127.0.0.1', '::': '[::1]' }[listenAddress] ??
    (listenAddress.includes(':') ? `[${listenAddress}]` : listenAddress);
  return `http://${host}:${port}`;
}

async function main(): Promise<void> {
  const environment = loadConfig();
  const logger = new Logger(environment.logLevel);
  const end = (reason: string): never => {
    logger.fatal(reason);
    process.exit(1);
  };
  const embedded = await startEmbedded(environment, (message, facts) => logger.log(message, facts), end);
  const { config } = embedded;
  const app = await NestFactory.create<NestFastifyApplication>(
    AppModule.with(config, embedded),
    fastifyAdapter(config),
    {
      logger,
      bodyParser: false,
      abortOnError: false,
    },
  );
  configureApp(app, config);
  await app.listen(config.port, config.listenAddress);
  const { port } = app.getHttpServer().address() as { port: number };
  app.get(JobReconciler).start(localUrl(config, port));
  logger.log('listening', {
    url: localUrl(config, port),
    docs: `${localUrl(config, port)}/docs`,
    store: config.s3.endpoint,
  });
  const stop = async (signal: string) => {
    logger.log('stopping', { signal });
    await app.close();
    await embedded.stop();
    process.exit(0);
  };
  for (const signal of ['SIGTERM', 'SIGINT'] as const) process.once(signal, () => void stop(signal));
}

await main().catch((error: Error) => {
  process.stderr.write(`${error instanceof BadConfiguration ? error.message : `cannot start: ${error.message}`}\n`);
  process.exit(1);
});
