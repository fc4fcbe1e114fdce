import { mkdir, readFile, rename, writeFile } from 'node:fs/promises';
import { randomUUID } from 'node:crypto';
import path from 'node:path';
import type { Config } from '../config/config.js';
import type { ArtifactLocation } from '../protocol/artifact-link.js';
import { provideCertificateAuthority } from './certificate-authority.js';
import { provideCredentials } from './credentials.js';
import { startEmbeddedPostgres } from './postgres.js';
import { lockDirectory } from './s3/directory-lock.js';
import { startS3Server } from './s3/s3-server.js';

type Log = (message: string, facts?: Record<string, unknown>) => void;

/** What stands in for the parts that the environment names no server for. */
export interface EmbeddedParts {
  /** The configuration with the addresses of the parts that run here. */
  config: Config;
  /** Names this state directory among all servers on a database, for as long as it exists. */
  stateId: string;
  /** The file that holds an artifact, where the store runs here; null elsewhere. */
  findLocalFile(location: ArtifactLocation): Promise<string | null>;
  /** Stops what was started, the database last. */
  stop(): Promise<void>;
}

/** Where the original's pods find the certificate of the site CA. */
const SITE_CA = '/etc/cray/ca/certificate_authority.crt';

/**
 * Makes the state directory where it is missing, and keeps other servers out of it. Local jobs live there, so that it belongs to one server
 * also where database and store are elsewhere.
 * @returns its id, and what gives it back
 * @throws Error with a sentence where it cannot be used
 */
async function openStateDirectory(directory: string): Promise<{ id: string; unlock: () => void }> {
  try {
    await mkdir(directory, { recursive: true, mode: 0o711 });
    const unlock = lockDirectory(directory, path.join(directory, 'lock'));
    return { id: await provideStateId(directory), unlock };
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (!code) throw error;
    throw new Error(`${directory} cannot be written (${code}): set STATE_DIR to a directory of the server's own`, {
      cause: error,
    });
  }
}

/** An id that is made at the first start and kept. */
async function provideStateId(directory: string): Promise<string> {
  const file = path.join(directory, 'id');
  const known = await readFile(file, 'utf8').catch(() => '');
  if (known) return known.trim();
  const id = randomUUID();
  await writeFile(`${file}.new`, id, { flush: true });
  await rename(`${file}.new`, file);
  return id;
}

async function findCertificateAuthority(config: Config, directory: string): Promise<string | null> {
  if (config.jobs.caCertificateFile) return config.jobs.caCertificateFile;
  const site = await readFile(SITE_CA).then(
    () => SITE_CA,
    () => null,
  );
  return site ?? (config.s3.endpoint ? null : provideCertificateAuthority(path.join(directory, 'ca')));
}

/** Runs parts in order and, where one fails, stops those that run already. */
class Stops {
  private readonly stops: (() => Promise<void>)[] = [];

  add(stop: () => Promise<void>): void {
    this.stops.unshift(stop);
  }

  async run(): Promise<void> {
    for (const stop of this.stops.splice(0)) await stop();
  }
}

/**
 * Starts an embedded part for each that the environment names no server for, all below STATE_DIR.
 * @param fail called when a part ends by itself, which leaves the server without it
 */
export async function startEmbedded(config: Config, log: Log, fail: (reason: string) => void): Promise<EmbeddedParts> {
  const directory = path.resolve(config.stateDir);
  const stops = new Stops();
  try {
    const { id: stateId, unlock } = await openStateDirectory(directory);
    stops.add(async () => unlock());
    const database = config.database.url ?? (await startDatabase(directory, log, fail, stops));
    const store = config.s3.endpoint ? null : await startStore(config, directory, log, stops);
    const caCertificateFile = await findCertificateAuthority(config, directory);
    if (!caCertificateFile) log('no CA certificate: images get none until CA_CERT names one');
    return {
      config: {
        ...config,
        stateDir: directory,
        database: { ...config.database, url: database },
        s3: { ...config.s3, ...store?.s3 },
        jobs: { ...config.jobs, caCertificateFile },
      },
      stateId,
      findLocalFile: store?.findLocalFile ?? (() => Promise.resolve(null)),
      stop: () => stops.run(),
    };
  } catch (error) {
    await stops.run();
    throw error;
  }
}

async function startDatabase(
  directory: string,
  log: Log,
  fail: (reason: string) => void,
  stops: Stops,
): Promise<string> {
  const postgres = await startEmbeddedPostgres({ directory: path.join(directory, 'postgres'), log });
  let stopping = false;
  stops.add(async () => {
    stopping = true;
    await postgres.stop();
  });
  void postgres.ended.then((reason) => stopping || fail(`the embedded PostgreSQL ended: ${reason}`));
  return postgres.url;
}

async function startStore(config: Config, directory: string, log: Log, stops: Stops) {
  const credentials = config.s3.credentials ?? (await provideCredentials(path.join(directory, 's3-credentials')));
  const server = await startS3Server({
    directory: path.join(directory, 's3'),
    port: config.s3.embeddedPort,
    credentials,
    reserveBytes: config.jobs.local.diskReserveMib * 1024 * 1024,
    log,
  });
  stops.add(() => server.close());
  return {
    s3: { endpoint: server.endpoint, credentials },
    findLocalFile: ({ bucket, key }: ArtifactLocation) => server.localFile(bucket, key),
  };
}
