import { readFileSync } from 'node:fs';
import type { S3Options } from '../artifacts/s3-requests.js';
import type { JobSpec, PhaseName } from '../protocol/job-spec.js';
import { PHASES } from '../protocol/job-spec.js';

/** What a phase is started with: its arguments, and the environment that its launcher gave it. */
export interface WorkerConfig {
  phase: PhaseName;
  job: JobSpec;
  /** Path of `job.json`; the directory that holds it is the job's. */
  specFile: string;
  store: S3Options;
  /** Bytes of the job's disk that stay free. */
  diskReserve: number;
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
    specFile,
    store: {
      endpoint: variable('S3_ENDPOINT'),
      accessKey: variable('S3_ACCESS_KEY'),
      secretKey: variable('S3_SECRET_KEY'),
      sslValidate: sslValidate(),
      region: variable('S3_REGION'),
    },
    diskReserve: Number(variable('DISK_RESERVE_MIB')) * 1024 * 1024,
  };
}
