import { request as httpRequest } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { NestFastifyApplication } from '@nestjs/platform-fastify';
import { Test } from '@nestjs/testing';
import { AppModule } from '../../src/app.module.js';
import { configureApp } from '../../src/app.setup.js';
import { ArtifactStore } from '../../src/artifacts/artifact-store.js';
import { type Config, loadConfig } from '../../src/config/config.js';
import { fastifyAdapter } from '../../src/fastify.js';
import { JobLauncher } from '../../src/jobs/launcher/job-launcher.js';
import { Logger } from '../../src/logger.js';
import { IdleJobLauncher } from './idle-job-launcher.js';
import { MemoryArtifactStore } from './memory-artifact-store.js';

/** What a server answered. */
export interface Answer {
  status: number;
  headers: Record<string, string | string[] | undefined>;
  /** The bytes of the body. */
  content: Buffer;
  /** The body as JSON where it is JSON, as text elsewhere. */
  body: unknown;
}

export interface TestRequest {
  headers?: Record<string, string>;
  /** Bytes and text are sent as they are; anything else as JSON, with its content type. */
  body?: unknown;
}

function parseBody(content: Buffer, contentType: string): unknown {
  const isJson = /^application\/(?:json|[\w.-]+\+json)\b/.test(contentType);
  return isJson && content.length ? JSON.parse(content.toString('utf8')) : content.toString('utf8');
}

function payloadOf({ body, headers = {} }: TestRequest): { headers: Record<string, string>; payload?: Buffer } {
  if (body === undefined) return { headers };
  if (Buffer.isBuffer(body) || typeof body === 'string') return { headers, payload: Buffer.from(body) };
  return { headers: { 'Content-Type': 'application/json', ...headers }, payload: Buffer.from(JSON.stringify(body)) };
}

/** Sends one request. The path is sent to the letter, also where no url parser would take it. */
export function send(origin: string, method: string, path: string, options: TestRequest = {}): Promise<Answer> {
  const { headers, payload } = payloadOf(options);
  const { hostname, port } = new URL(origin);
  return new Promise((resolve, reject) => {
    const request = httpRequest(
      {
        agent: false,
        hostname,
        port,
        method,
        path,
        headers: payload ? { ...headers, 'Content-Length': payload.length } : headers,
      },
      (response) => {
        const chunks: Buffer[] = [];
        response.on('data', (chunk: Buffer) => chunks.push(chunk));
        response.on('error', reject);
        response.on('end', () => {
          const content = Buffer.concat(chunks);
          const body = parseBody(content, String(response.headers['content-type'] ?? ''));
          resolve({ status: response.statusCode!, headers: response.headers, content, body });
        });
      },
    );
    request.on('error', reject);
    request.end(payload);
  });
}

export interface TestAppOptions {
  /** Url of a database without a schema, or with the schema of an earlier app. */
  databaseUrl: string;
  /** Variables on top of the defaults. */
  environment?: Record<string, string>;
  store?: ArtifactStore;
  launcher?: JobLauncher;
}

/** The whole application, listening on a free port of loopback. */
export interface TestApp {
  readonly origin: string;
  readonly config: Config;
  readonly store: ArtifactStore;
  readonly nest: NestFastifyApplication;
  send(method: string, path: string, options?: TestRequest): Promise<Answer>;
  /** Resolves when what requests have left to be done is done. */
  settle(): Promise<void>;
  close(): Promise<void>;
}

/** Starts the application on a database of the test's; store and launcher are doubles where the test gives none. */
export async function startTestApp(options: TestAppOptions): Promise<TestApp> {
  const config = loadConfig({ LOG_LEVEL: 'fatal', DATABASE_URL: options.databaseUrl, ...options.environment });
  const { imsBucket, bootImagesBucket } = config.s3;
  const store = options.store ?? new MemoryArtifactStore([imsBucket, bootImagesBucket]);
  const surroundings = { stateId: 'test', findLocalFile: () => Promise.resolve(null) };
  const module = await Test.createTestingModule({ imports: [AppModule.with(config, surroundings)] })
    .overrideProvider(ArtifactStore)
    .useValue(store)
    .overrideProvider(JobLauncher)
    .useValue(options.launcher ?? new IdleJobLauncher(config.jobs))
    .setLogger(new Logger(config.logLevel))
    .compile();
  const nest = module.createNestApplication<NestFastifyApplication>(fastifyAdapter(config), { bodyParser: false });
  configureApp(nest, config);
  await nest.listen(0, '127.0.0.1');
  const origin = `http://127.0.0.1:${(nest.getHttpServer().address() as AddressInfo).port}`;
  return {
    origin,
    config,
    store,
    nest,
    send: (method, path, request) => send(origin, method, path, request),
    settle: () => Promise.resolve(),
    close: () => nest.close(),
  };
}
