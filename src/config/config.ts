import path from 'node:path';
import { ENV, type EnvKind, type EnvName, type EnvValues, type EnvVariable } from './env.js';

/** A start-up error that names every bad variable, and never a value. */
export class BadConfiguration extends Error {
  constructor(readonly mistakes: readonly string[]) {
    super(
      `cannot start, the environment has ${mistakes.length === 1 ? 'a mistake' : `${mistakes.length} mistakes`}:\n${mistakes.map((m) => `  ${m}`).join('\n')}`,
    );
    this.name = 'BadConfiguration';
  }
}

export interface S3Credentials {
  accessKey: string;
  secretKey: string;
}

/** Everything that the environment decides, checked once at start. Sizes and times carry their unit in the name. */
export interface Config {
  readonly port: number;
  readonly listenAddress: string;
  /** Where workers only are answered; null where there is no such port. */
  readonly reportPort: number | null;
  readonly logLevel: 'debug' | 'info' | 'warn' | 'error' | 'fatal';
  readonly maxBodyBytes: number;
  readonly stateDir: string;
  /** Private ssh key by which remote build nodes are asked; null where the site has given none. */
  readonly remoteNodeKeyFile: string | null;
  /** A null url stands for the embedded part. */
  readonly database: { readonly url: string | null; readonly poolSize: number };
  readonly s3: {
    readonly endpoint: string | null;
    /** Null only where the embedded store makes its own. */
    readonly credentials: S3Credentials | null;
    /** true, false, or the path of a file of CA certificates. */
    readonly sslValidate: boolean | string;
    readonly region: string;
    readonly imsBucket: string;
    readonly bootImagesBucket: string;
    readonly embeddedPort: number;
  };
  readonly jobs: {
    readonly launcher: 'local' | 'kubernetes';
    readonly namespace: string;
    readonly buildEnvSizeGib: number;
    readonly memSizeGib: number;
    readonly customerAccess: { readonly subnet: string; readonly domain: string; readonly addressPool: string };
    readonly enableDkms: boolean;
    /** Whether emulators are registered for images of another architecture. */
    readonly emulation: boolean;
    readonly kataRuntime: string;
    readonly aarch64Runtime: string;
    /** Path of a PEM file; null where none was named. */
    readonly caCertificateFile: string | null;
    readonly shellSeconds: number;
    readonly shellIdleSeconds: number;
    readonly retentionSeconds: number;
    readonly unownedSeconds: number;
    readonly recipes: {
      /** Public keys by which packages are checked; null for none. */
      readonly signingKeysDir: string | null;
      readonly repositorySeconds: number;
      readonly buildSeconds: number;
      readonly maxMib: number;
      readonly maxEntries: number;
    };
    readonly packing: {
      readonly compression: 'source' | 'gzip' | 'zstd' | 'xz' | 'lz4' | 'lzo';
      readonly gzipLevel: number;
      readonly zstdLevel: number;
      readonly memoryMib: number;
      /** 0 for all. */
      readonly processors: number;
    };
    /** How pods of jobs are made; null where jobs run on this machine. */
    readonly kubernetes: {
      /** Under which workers reach this service, without a slash at its end. */
      readonly serverUrl: string;
      readonly workerImage: string;
      /** Null where create jobs are not offered. */
      readonly builderImage: string | null;
      /** Names of the Secret with public keys that packages are checked by. */
      readonly signingKeys: { readonly namespace: string; readonly secret: string };
      readonly pullPolicy: 'Always' | 'IfNotPresent' | 'Never';
      readonly pendingSeconds: number;
      readonly podRetentionSeconds: number;
      /** Null for the default one of the cluster. */
      readonly storageClass: string | null;
      readonly storeSecret: string;
      readonly mountServiceAccount: string;
      readonly pod: object;
    } | null;
    readonly local: {
      readonly maxRunning: number;
      readonly ports: { readonly first: number; readonly last: number };
      readonly listenAddress: string;
      readonly host: string;
      readonly diskReserveMib: number;
      /** Where the Python environment with KIWI-NG is kept. */
      readonly kiwiDir: string;
    };
  };
}

type Environment = Readonly<Record<string, string | undefined>>;

const TRUE = new Set(['true', 'yes', 'on', '1', 't', 'y']);
const FALSE = new Set(['false', 'no', 'off', '0', 'f', 'n']);

/** The value of one variable, or a sentence that says what is wrong with its text. */
function parse(type: EnvKind, value: string): { value: unknown } | { mistake: string } {
  switch (type.kind) {
    case 'boolean':
      return parseBoolean(value) ?? { mistake: 'must be true or false' };
    case 'boolean-or-path':
      return (
        parseBoolean(value) ??
        (value.startsWith('/')
          ? { value }
          : { mistake: 'must be true, false, or the absolute path of a file of CA certificates' })
      );
    case 'integer': {
      const number = Number(value);
      const valid = /^\d+$/.test(value) && number >= type.min && number <= type.max;
      return valid ? { value: number } : { mistake: `must be a whole number from ${type.min} to ${type.max}` };
    }
    case 'choice':
      return parseChoice(value, type.of);
    case 'url':
      return parseUrl(value, type.protocols);
    case 'ports':
      return parsePorts(value);
    case 'json':
      return parseObject(value, type.members);
    default:
      return value.includes('\0') ? { mistake: 'must not contain a NUL character' } : { value };
  }
}

function parseChoice(value: string, of: readonly string[]): { value: string } | { mistake: string } {
  const chosen = of.find((choice) => choice.toLowerCase() === value.toLowerCase());
  return chosen === undefined ? { mistake: `must be one of ${of.join(', ')}` } : { value: chosen };
}

function parseObject(value: string, members: readonly string[]): { value: object } | { mistake: string } {
  let object: unknown;
  try {
    object = JSON.parse(value);
  } catch {
    return { mistake: 'must be JSON' };
  }
  if (typeof object !== 'object' || object === null || Array.isArray(object))
    return { mistake: 'must be a JSON object' };
  const unknown = Object.keys(object).filter((name) => !members.includes(name));
  return unknown.length
    ? { mistake: `must not have the members ${unknown.join(', ')}; those that it may have are ${members.join(', ')}` }
    : { value: object };
}

function parseBoolean(value: string): { value: boolean } | null {
  const text = value.toLowerCase();
  if (TRUE.has(text)) return { value: true };
  return FALSE.has(text) ? { value: false } : null;
}

function parseUrl(value: string, protocols: readonly string[]): { value: string } | { mistake: string } {
  const valid = URL.canParse(value) && protocols.includes(new URL(value).protocol);
  return valid
    ? { value }
    : { mistake: `must be a url that begins with ${protocols.map((p) => `${p}//`).join(' or ')}` };
}

function parsePorts(value: string): { value: { first: number; last: number } } | { mistake: string } {
  const [first = 0, last = 0] = /^\d{1,5}-\d{1,5}$/.test(value) ? value.split('-').map(Number) : [];
  const valid = first >= 1 && last <= 65_535 && first <= last;
  return valid ? { value: { first, last } } : { mistake: 'must be two ports, the lower one first, as 20000-20999' };
}

/** Values that only make sense together. */
function checkTogether(values: Record<EnvName, unknown>, mistakes: string[]): void {
  const keys = [values.S3_ACCESS_KEY, values.S3_SECRET_KEY].filter((key) => key !== undefined).length;
  if (keys === 1) mistakes.push('S3_ACCESS_KEY and S3_SECRET_KEY must be set together');
  if (values.S3_ENDPOINT !== undefined && keys === 0)
    mistakes.push('S3_ENDPOINT needs S3_ACCESS_KEY and S3_SECRET_KEY');
  if (values.JOB_LAUNCHER === 'kubernetes') checkCluster(values, mistakes);
}

function checkCluster(values: Record<EnvName, unknown>, mistakes: string[]): void {
  const needs: Partial<Record<EnvName, string>> = {
    DATABASE_URL: 'jobs in a cluster outlive one server and its embedded database',
    S3_ENDPOINT: 'pods cannot reach an embedded store on loopback',
    JOB_SERVER_URL: 'pods tell this service how their jobs are',
    JOB_WORKER_IMAGE: 'pods run the worker of this version',
  };
  for (const [name, why] of Object.entries(needs))
    if (values[name as EnvName] === undefined) mistakes.push(`JOB_LAUNCHER=kubernetes needs ${name}: ${why}`);
}

/**
 * Reads the environment. An empty variable counts as unset.
 * @throws BadConfiguration that names all mistakes at once
 */
export function loadConfig(environment: Environment = process.env): Config {
  const mistakes: string[] = [];
  const values = {} as Record<EnvName, unknown>;
  for (const [name, variable] of Object.entries(ENV) as [EnvName, EnvVariable][]) {
    const text = environment[name] === '' || environment[name] === undefined ? variable.default : environment[name];
    if (text === undefined) continue;
    const parsed = parse(variable.type, text);
    if ('mistake' in parsed) mistakes.push(`${name} ${parsed.mistake}`);
    else values[name] = parsed.value;
  }
  checkTogether(values, mistakes);
  if (mistakes.length) throw new BadConfiguration(mistakes);
  return deepFreeze(nest(values as EnvValues));
}

const LOG_LEVELS = {
  debug: 'debug',
  info: 'info',
  warn: 'warn',
  warning: 'warn',
  error: 'error',
  critical: 'fatal',
  fatal: 'fatal',
} as const;

function nest(values: EnvValues): Config {
  const credentials = values.S3_ACCESS_KEY
    ? { accessKey: values.S3_ACCESS_KEY, secretKey: values.S3_SECRET_KEY }
    : null;
  return {
    port: values.PORT,
    listenAddress: values.LISTEN_ADDRESS,
    reportPort: values.JOB_REPORT_PORT ?? null,
    logLevel: LOG_LEVELS[values.LOG_LEVEL],
    maxBodyBytes: values.MAX_BODY_BYTES,
    stateDir: values.STATE_DIR,
    remoteNodeKeyFile: values.REMOTE_BUILD_NODE_KEY ?? null,
    database: { url: values.DATABASE_URL ?? null, poolSize: values.DATABASE_POOL_SIZE },
    s3: {
      endpoint: values.S3_ENDPOINT ?? null,
      credentials,
      sslValidate: values.S3_SSL_VALIDATE,
      region: values.S3_REGION,
      imsBucket: values.S3_IMS_BUCKET,
      bootImagesBucket: values.S3_BOOT_IMAGES_BUCKET,
      embeddedPort: values.EMBEDDED_S3_PORT,
    },
    jobs: nestJobs(values),
  };
}

function nestJobs(values: EnvValues): Config['jobs'] {
  return {
    launcher: values.JOB_LAUNCHER,
    namespace: values.DEFAULT_IMS_JOB_NAMESPACE,
    buildEnvSizeGib: values.DEFAULT_IMS_IMAGE_SIZE,
    memSizeGib: values.DEFAULT_IMS_JOB_MEM_SIZE,
    customerAccess: {
      subnet: values.JOB_CUSTOMER_ACCESS_SUBNET_NAME,
      domain: values.JOB_CUSTOMER_ACCESS_NETWORK_DOMAIN,
      addressPool: values.JOB_CUSTOMER_ACCESS_NETWORK_ACCESS_POOL,
    },
    enableDkms: values.JOB_ENABLE_DKMS,
    emulation: values.JOB_EMULATION,
    kataRuntime: values.JOB_KATA_RUNTIME,
    aarch64Runtime: values.JOB_AARCH64_RUNTIME,
    caCertificateFile: values.CA_CERT ?? null,
    shellSeconds: values.JOB_SHELL_SECONDS,
    shellIdleSeconds: values.JOB_SHELL_IDLE_SECONDS,
    retentionSeconds: values.JOB_RETENTION_SECONDS,
    unownedSeconds: values.JOB_UNOWNED_SECONDS,
    recipes: {
      signingKeysDir: values.JOB_SIGNING_KEYS_DIR ?? null,
      repositorySeconds: values.JOB_REPOSITORY_SECONDS,
      buildSeconds: values.JOB_BUILD_SECONDS,
      maxMib: values.JOB_RECIPE_MAX_MIB,
      maxEntries: values.JOB_RECIPE_MAX_ENTRIES,
    },
    packing: {
      compression: values.JOB_SQUASHFS_COMPRESSION,
      gzipLevel: values.JOB_SQUASHFS_GZIP_LEVEL,
      zstdLevel: values.JOB_SQUASHFS_ZSTD_LEVEL,
      memoryMib: values.JOB_PACK_MEMORY_MIB,
      processors: values.JOB_PACK_PROCESSORS,
    },
    kubernetes: values.JOB_LAUNCHER === 'kubernetes' ? nestKubernetes(values) : null,
    local: {
      maxRunning: values.JOB_MAX_RUNNING,
      ports: values.JOB_SSH_PORTS,
      listenAddress: values.JOB_SSH_LISTEN_ADDRESS,
      host: values.JOB_SSH_HOST ?? values.JOB_SSH_LISTEN_ADDRESS,
      diskReserveMib: values.JOB_DISK_RESERVE_MIB,
      kiwiDir: path.resolve(values.JOB_KIWI_DIR ?? path.join(values.STATE_DIR, 'kiwi')),
    },
  };
}

function nestKubernetes(values: EnvValues): NonNullable<Config['jobs']['kubernetes']> {
  return {
    serverUrl: values.JOB_SERVER_URL.replace(/\/+$/, ''),
    workerImage: values.JOB_WORKER_IMAGE,
    builderImage: values.JOB_BUILDER_IMAGE ?? null,
    signingKeys: { namespace: values.JOB_SIGNING_KEYS_NAMESPACE, secret: values.JOB_SIGNING_KEYS_SECRET },
    pullPolicy: values.JOB_IMAGE_PULL_POLICY,
    pendingSeconds: values.JOB_PENDING_SECONDS,
    podRetentionSeconds: values.JOB_POD_RETENTION_SECONDS,
    storageClass: values.JOB_STORAGE_CLASS ?? null,
    storeSecret: values.JOB_S3_SECRET,
    mountServiceAccount: values.JOB_MOUNT_SERVICE_ACCOUNT,
    pod: values.JOB_POD_SETTINGS,
  };
}

function deepFreeze<T extends object>(object: T): T {
  for (const value of Object.values(object)) if (typeof value === 'object' && value !== null) deepFreeze(value);
  return Object.freeze(object);
}
