import 'reflect-metadata';
import type { Server } from 'node:http';
import { NestFactory } from '@nestjs/core';
import type { NestFastifyApplication } from '@nestjs/platform-fastify';
import { AppModule } from './app.module.js';
import { configureApp } from './app.setup.js';
import { BadConfiguration, type Config, loadConfig } from './config/config.js';
import { type EmbeddedParts, startEmbedded } from './embedded/start.js';
import { fastifyAdapter } from './fastify.js';
import { JobReconciler } from './jobs/job-reconciler.js';
import { JobLauncher } from './jobs/launcher/job-launcher.js';
import { listenForWorkers } from './jobs/worker-access.js';
import { Logger } from './logger.js';

/** Where workers on this machine reach a server that listens there. */
function localUrl({ listenAddress }: Config, port: number): string {
  const host =
    { '0.0.0.0': '127.0.0.1', '::': '[::1]' }[listenAddress] ??
    (listenAddress.includes(':') ? `[${listenAddress}]` : listenAddress);
  return `http://${host}:${port}`;
}

async function createApp(embedded: EmbeddedParts, logger: Logger): Promise<NestFastifyApplication> {
  const { config } = embedded;
  const module = AppModule.with(config, embedded);
  const options = { logger, bodyParser: false, abortOnError: false };
  const app = await NestFactory.create<NestFastifyApplication>(module, fastifyAdapter(config), options);
  configureApp(app, config);
  return app;
}

/** @throws Error with a sentence where the address cannot be had */
async function listen(app: NestFastifyApplication, config: Config): Promise<string> {
  try {
    await app.listen(config.port, config.listenAddress);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (!code) throw error;
    const where = `port ${config.port} of ${config.listenAddress}`;
    const why = code === 'EADDRINUSE' ? 'another process listens there' : code;
    throw new Error(`${where} cannot be had (${why}): set PORT or LISTEN_ADDRESS to another`, { cause: error });
  }
  const { port } = app.getHttpServer().address() as { port: number };
  return localUrl(config, port);
}

/** Listens where workers only are answered, if the site has such a port. */
function answerWorkers(app: NestFastifyApplication, { reportPort, listenAddress }: Config): Promise<Server> | null {
  const fastify = app.getHttpAdapter().getInstance();
  return reportPort === null
    ? null
    : listenForWorkers((request, response) => fastify.routing(request, response), reportPort, listenAddress);
}

async function serve(embedded: EmbeddedParts, logger: Logger): Promise<void> {
  const { config } = embedded;
  const app = await createApp(embedded, logger);
  const url = await listen(app, config).catch(async (error: unknown) => {
    await app.close();
    throw error;
  });
  const workers = await answerWorkers(app, config);
  app.get(JobReconciler).start(url);
  logger.log('listening', { url, docs: `${url}/docs`, store: config.s3.endpoint });
  // What needs no jobs works all the same.
  app
    .get(JobLauncher)
    .ready()
    .catch(({ message }: Error) => logger.warn(`no jobs can run: ${message}`));
  const stop = async (signal: string) => {
    logger.log('stopping', { signal });
    workers?.closeAllConnections();
    workers?.close();
    await app.close();
    await embedded.stop();
    process.exit(0);
  };
  for (const signal of ['SIGTERM', 'SIGINT'] as const) process.once(signal, () => void stop(signal));
}

async function main(): Promise<void> {
  const environment = loadConfig();
  const logger = new Logger(environment.logLevel);
  const end = (reason: string): never => {
    logger.fatal(reason);
    process.exit(1);
  };
  const embedded = await startEmbedded(environment, (message, facts) => logger.log(message, facts), end);
  await serve(embedded, logger).catch(async (error: unknown) => {
    await embedded.stop();
    throw error;
  });
}

await main().catch((error: Error) => {
  process.stderr.write(`${error instanceof BadConfiguration ? error.message : `cannot start: ${error.message}`}\n`);
  process.exit(1);
});
