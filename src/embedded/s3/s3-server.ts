import { mkdir } from 'node:fs/promises';
import http, { type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import path from 'node:path';
import { lockDirectory } from './directory-lock.js';
import { ObjectStore } from './object-store.js';
import { S3Routes } from './s3-routes.js';

export interface S3ServerOptions {
  /** Holds all objects. Nobody else writes there. */
  directory: string;
  /** 127.0.0.1 by default. */
  host?: string;
  /** 0, the default, takes a free one. */
  port?: number;
  credentials: { accessKey: string; secretKey: string };
  /** Bytes of the disk that stay free: what would go below them is answered with 507. */
  reserveBytes?: number;
  /** Uploads that were begun longer ago and neither completed nor aborted are removed; a week by default. */
  staleUploadSeconds?: number;
  log?: (message: string, facts?: Record<string, unknown>) => void;
}

export interface S3Server {
  /** `http://host:port`. */
  readonly endpoint: string;
  readonly port: number;
  /**
   * The file that is an object's whole content, for a reader on the same disk that uses it in place; null where the object is missing or is
   * not one file. The file never changes; when the object is deleted it goes, but for readers that have it open, mounted or linked.
   */
  localFile(bucket: string, key: string): Promise<string | null>;
  /** Breaks off what is under way, and returns when all of it has ended. Safe to repeat. */
  close(): Promise<void>;
}

/** Milliseconds that a connection may be idle. */
const KEEP_ALIVE = 60_000;
/** Seconds in a week. */
const WEEK = 7 * 24 * 3600;
/** Milliseconds between two looks for uploads that nobody will finish. */
const SWEEP_INTERVAL = 3_600_000;

async function removeStaleUploads(store: ObjectStore, seconds: number): Promise<void> {
  for (const upload of store.uploadsBefore(new Date(Date.now() - seconds * 1000)))
    await store.abortUpload(upload).catch(() => {});
}

async function listen(server: Server, port: number, host: string): Promise<number> {
  await new Promise<void>((resolve, reject) => {
    server.once('error', (error: NodeJS.ErrnoException) =>
      reject(
        error.code === 'EADDRINUSE'
          ? new Error(
              `the port ${port} of the embedded S3 store is in use: set EMBEDDED_S3_PORT to a free one, or to 0`,
            )
          : error,
      ),
    );
    server.listen(port, host, resolve);
  });
  return (server.address() as AddressInfo).port;
}

/** Requests that are being answered. */
class Answers {
  private readonly running = new Set<Promise<void>>();

  add(answer: Promise<void>): void {
    const settled = answer.finally(() => this.running.delete(settled));
    this.running.add(settled);
  }

  async settle(): Promise<void> {
    while (this.running.size) await Promise.all(this.running);
  }
}

function createServer(routes: S3Routes, answers: Answers): Server {
  const answer = (request: IncomingMessage, response: ServerResponse) => answers.add(routes.answer(request, response));
  const server = http.createServer(answer);
  // Who asks before it sends a body is told to go on when the body is wanted.
  server.on('checkContinue', answer);
  // A large object on a slow line takes longer than the five minutes that node gives a request.
  server.requestTimeout = 0;
  // A busy client finds out too late that an idle connection was closed, and its next request fails.
  server.keepAliveTimeout = KEEP_ALIVE;
  return server;
}

/**
 * Starts an S3 server on a directory of this machine.
 * @throws Error where the directory or the port is in use
 */
export async function startS3Server(options: S3ServerOptions): Promise<S3Server> {
  const directory = path.resolve(options.directory);
  await mkdir(directory, { recursive: true, mode: 0o700 });
  const unlock = lockDirectory(directory, path.join(directory, 'lock'));
  try {
    const store = new ObjectStore(directory, options.reserveBytes ?? 0);
    await store.open();
    return await serve(store, options, unlock);
  } catch (error) {
    unlock();
    throw error;
  }
}

async function serve(store: ObjectStore, options: S3ServerOptions, unlock: () => void): Promise<S3Server> {
  const { host = '127.0.0.1', port = 0, credentials, staleUploadSeconds = WEEK, log = () => {} } = options;
  const answers = new Answers();
  const server = createServer(new S3Routes(store, credentials, log), answers);
  const sweep = () => removeStaleUploads(store, staleUploadSeconds);
  await sweep();
  const boundPort = await listen(server, port, host);
  const timer = setInterval(() => answers.add(sweep()), SWEEP_INTERVAL).unref();
  const close = async () => {
    clearInterval(timer);
    const closed = new Promise((resolve) => server.close(resolve));
    server.closeAllConnections();
    await closed;
    // The next server on the directory must not meet writes of this one.
    await answers.settle();
    await store.settle();
    unlock();
  };
  let closing: Promise<void> | undefined;
  return {
    endpoint: `http://${host}:${boundPort}`,
    port: boundPort,
    localFile: (bucket, key) => findLocalFile(store, bucket, key),
    close: () => (closing ??= close()),
  };
}

async function findLocalFile(store: ObjectStore, bucket: string, key: string): Promise<string | null> {
  try {
    return await store.fileOf(store.get(bucket, key));
  } catch {
    return null;
  }
}
