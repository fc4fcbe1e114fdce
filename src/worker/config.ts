import { readFileSync } from 'node:fs';
import { dirname } from 'node:path';
import type { S3Options } from '../artifacts/s3-requests.js';
import { type JobSpec, type PhaseName, PHASES } from '../protocol/job-spec.js';

/** Where phases run. */
export type Place = 'machine' | 'pod';

/** What a phase is started with: its arguments, and the environment that its launcher gave it. */
export interface WorkerConfig {
  phase: PhaseName;
  job: JobSpec;
  /** The job directory: the one that holds `job.json`, unless the launcher says otherwise. */
  directory: string;
  /** Whether the phase runs in a container of a pod, which holds it, or must make a sandbox of its own. */
  place: Place;
  /** Null where the launcher gave no keys: the user of a shell in a pod could read them. */
  store: S3Options | null;
  /** Bytes of the job's disk that stay free. */
  diskReserve: number;
  /** Where the Python environment with KIWI-NG is kept; null where nothing is built. */
  kiwiDirectory: string | null;
  /** Public keys by which packages are checked; null for none. */
  signingKeysDirectory: string | null;
  /** Whether programs of another architecture are to be run by an emulator, which may be registered. */
  emulation: boolean;
}

function variable(name: string): string {
  const value = process.env[name];
  if (value === undefined) throw new Error(`the launcher set no ${name}`);
  return value;
}

/** `true`, `false`, or the path of a file of CA certificates. */
function sslValidate(): boolean | string {
  const value = variable('S3_SSL_VALIDATE');
  return value === 'true' || (value === 'false' ? false : value);
}

function storeOptions(): S3Options {
  return {
    endpoint: variable('S3_ENDPOINT'),
    accessKey: variable('S3_ACCESS_KEY'),
    secretKey: variable('S3_SECRET_KEY'),
    sslValidate: sslValidate(),
    region: variable('S3_REGION'),
  };
}

/**
 * Reads the arguments of `worker <phase> <job.json>`, the environment and the specification.
 * @throws Error where a launcher started the worker otherwise
 */
export function readWorkerConfig([phase, specFile]: readonly string[]): WorkerConfig {
  if (!PHASES.includes(phase as PhaseName) || !specFile)
    throw new Error(`start me as: worker ${PHASES.join('|')} job.json`);
  return {
    phase: phase as PhaseName,
    job: JSON.parse(readFileSync(specFile, 'utf8')) as JobSpec,
    directory: process.env['JOB_DIRECTORY'] ?? dirname(specFile),
    place: process.env['JOB_SANDBOX'] === 'pod' ? 'pod' : 'machine',
    store: process.env['S3_ENDPOINT'] === undefined ? null : storeOptions(),
    diskReserve: Number(variable('DISK_RESERVE_MIB')) * 1024 * 1024,
    kiwiDirectory: process.env['KIWI_DIR'] || null,
    signingKeysDirectory: process.env['SIGNING_KEYS_DIR'] || null,
    emulation: process.env['EMULATION'] === 'true',
  };
}
