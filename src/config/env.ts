/** How the text of a variable is read. */
export type EnvKind =
  | { kind: 'text' }
  | { kind: 'secret' }
  | { kind: 'boolean' }
  | { kind: 'integer'; min: number; max: number }
  | { kind: 'choice'; of: readonly string[] }
  | { kind: 'url'; protocols: readonly string[] }
  /** Two ports and all between them, as `20000-20999`. */
  | { kind: 'ports' }
  /** A JSON object with some of these members. */
  | { kind: 'json'; members: readonly string[] }
  /** A boolean, or the path of a file of CA certificates. */
  | { kind: 'boolean-or-path' };

export interface EnvVariable<Kind extends EnvKind = EnvKind> {
  type: Kind;
  /** Text that stands in for an unset or empty variable; undefined where there is none. */
  default?: string;
  /** One line for operators. */
  comment: string;
}

const text = (comment: string, fallback?: string) => ({ type: { kind: 'text' }, comment, default: fallback }) as const;
const flag = (comment: string, fallback: string) =>
  ({ type: { kind: 'boolean' }, comment, default: fallback }) as const;
const integer = (comment: string, fallback: number, min: number, max: number) =>
  ({ type: { kind: 'integer', min, max }, comment, default: String(fallback) }) as const;
const choice = <Choice extends string>(comment: string, of: readonly Choice[], fallback: Choice) =>
  ({ type: { kind: 'choice', of }, comment, default: fallback }) as const;

const WEEK = 7 * 24 * 3600;
const YEAR = 365 * 24 * 3600;

/** Members of JOB_POD_SETTINGS, named as those of a pod. */
const POD_SETTINGS = [
  'nodeSelector',
  'tolerations',
  'annotations',
  'labels',
  'priorityClassName',
  'imagePullSecrets',
  'cpuRequest',
  'cpuLimit',
] as const;

const variables = {
  PORT: integer('TCP port of the API.', 8080, 0, 65_535),
  LISTEN_ADDRESS: text(
    'Address on which the API listens; 0.0.0.0 for all. The API asks nobody who they are: keep it behind a gateway.',
    '127.0.0.1',
  ),
  LOG_LEVEL: choice(
    'Least level that is logged.',
    ['debug', 'info', 'warning', 'warn', 'error', 'critical', 'fatal'],
    'info',
  ),
  MAX_BODY_BYTES: integer('Largest request body, bytes.', 1_048_576, 1024, 1_073_741_824),
  STATE_DIR: text('Directory for everything that embedded parts and local jobs write.', '.state'),

  DATABASE_URL: {
    type: { kind: 'url', protocols: ['postgres:', 'postgresql:'] },
    comment: 'PostgreSQL to use. Unset: an embedded one, kept below STATE_DIR.',
  },
  DATABASE_POOL_SIZE: integer('Connections that one server keeps to the database.', 10, 1, 1000),

  S3_ENDPOINT: {
    type: { kind: 'url', protocols: ['http:', 'https:'] },
    comment: 'S3 store to use. Unset: an embedded one, kept below STATE_DIR.',
  },
  S3_ACCESS_KEY: text('Access key of the S3 store; the embedded store takes it as its own.'),
  S3_SECRET_KEY: {
    type: { kind: 'secret' },
    comment: 'Secret key of the S3 store; the embedded store takes it as its own.',
  },
  S3_SSL_VALIDATE: {
    type: { kind: 'boolean-or-path' },
    comment: 'Whether the certificate of the S3 store is checked, or a file of CA certificates to check it with.',
    default: 'true',
  },
  S3_REGION: text('Region name in signatures.', 'us-east-1'),
  S3_IMS_BUCKET: text('Bucket of recipes.', 'ims'),
  S3_BOOT_IMAGES_BUCKET: text('Bucket of images.', 'boot-images'),
  EMBEDDED_S3_PORT: integer('TCP port of the embedded S3 store, on 127.0.0.1; 0 takes a free one.', 9000, 0, 65_535),

  JOB_LAUNCHER: choice('What runs jobs: sandboxes on this machine, or Kubernetes.', ['local', 'kubernetes'], 'local'),
  DEFAULT_IMS_JOB_NAMESPACE: text('Kubernetes namespace of jobs.', 'ims'),
  JOB_REPORT_PORT: {
    type: { kind: 'integer', min: 1, max: 65_535 },
    comment:
      'TCP port on which workers only are answered, each for its own job: the one to which pods of jobs are let through. Unset: workers use PORT.',
  },
  JOB_SERVER_URL: {
    type: { kind: 'url', protocols: ['http:', 'https:'] },
    comment: 'Url under which jobs in a cluster reach this service, as http://cray-ims.services.svc.cluster.local.',
  },
  JOB_WORKER_IMAGE: text('Container image of the worker of this version, for jobs in a cluster.'),
  JOB_BUILDER_IMAGE: text(
    'Container image of the worker with KIWI-NG, for create jobs in a cluster. Unset: create jobs end with a reason that says so.',
  ),
  JOB_SIGNING_KEYS_SECRET: text(
    'Secret with the public keys by which packages of recipes are checked; each create job gets a copy. It may be missing.',
    'hpe-signing-key',
  ),
  JOB_SIGNING_KEYS_NAMESPACE: text('Kubernetes namespace of that secret.', 'services'),
  JOB_IMAGE_PULL_POLICY: choice(
    'When nodes pull the container image of the worker.',
    ['Always', 'IfNotPresent', 'Never'],
    'IfNotPresent',
  ),
  JOB_PENDING_SECONDS: integer(
    'Seconds for which a pod may wait for a node, a disk or an image, and a job for the cluster to take it, before the job ends.',
    600,
    1,
    YEAR,
  ),
  JOB_POD_RETENTION_SECONDS: integer(
    'Seconds for which the cluster keeps the pod of a job that has ended, with its disk. Logs are in the store by then.',
    86_400,
    60,
    YEAR,
  ),
  JOB_STORAGE_CLASS: text('Storage class of the disks of jobs. Unset: the default one of the cluster.'),
  JOB_S3_SECRET: text(
    'Secret in the namespace of jobs with access_key and secret_key of the S3 store.',
    'ims-s3-credentials',
  ),
  JOB_MOUNT_SERVICE_ACCOUNT: text('Service account of pods that may mount (dkms).', 'ims-service-job-mount'),
  JOB_POD_SETTINGS: {
    type: { kind: 'json', members: POD_SETTINGS },
    comment: `What a site adds to the pods of jobs, JSON: ${POD_SETTINGS.join(', ')}.`,
    default: '{}',
  },
  DEFAULT_IMS_IMAGE_SIZE: integer('Default `build_env_size` of a job, GiB.', 10, 1, 1_000_000),
  DEFAULT_IMS_JOB_MEM_SIZE: integer('Default `job_mem_size` of a job, GiB.', 8, 1, 1_000_000),
  JOB_CUSTOMER_ACCESS_SUBNET_NAME: text('Subnet part of the name under which a job shell is reached.', 'cmn'),
  JOB_CUSTOMER_ACCESS_NETWORK_DOMAIN: text('Domain of the name under which a job shell is reached.', 'shasta.local'),
  JOB_CUSTOMER_ACCESS_NETWORK_ACCESS_POOL: text('MetalLB address pool of job shells.', 'customer-management'),
  JOB_ENABLE_DKMS: flag(
    'Whether jobs that do not say get an environment in which kernel modules can be built.',
    'true',
  ),
  JOB_KATA_RUNTIME: text('Runtime class of jobs that need dkms.', 'kata-qemu'),
  JOB_AARCH64_RUNTIME: text('Runtime class of aarch64 jobs.', 'kata-qemu'),
  CA_CERT: text(
    'File with the certificate of the site CA (PEM), which every new image gets. Unset: /etc/cray/ca/certificate_authority.crt where it exists; embedded, a CA of its own.',
  ),

  REMOTE_BUILD_NODE_KEY: text('File with the private ssh key by which remote build nodes are asked for their status.'),

  JOB_MAX_RUNNING: integer('Local jobs that run at once; others wait in `creating`.', 4, 1, 1000),
  JOB_SSH_PORTS: {
    type: { kind: 'ports' },
    comment: 'TCP ports for the shells of local jobs.',
    default: '20000-20999',
  },
  JOB_SSH_LISTEN_ADDRESS: text('Address on which the shells of local jobs listen.', '127.0.0.1'),
  JOB_SSH_HOST: text(
    'Host name or address that job records give for the shells of local jobs. Unset: the address on which they listen.',
  ),
  JOB_SHELL_SECONDS: integer(
    'Seconds after which a shell that nobody ended is ended, and its job with it; 0 for never. `shell_deadline` of a job moves it.',
    WEEK,
    0,
    YEAR,
  ),
  JOB_SHELL_IDLE_SECONDS: integer(
    'Seconds after which a shell is ended in which nobody is logged in and nothing runs; 0 for never.',
    WEEK / 7,
    0,
    YEAR,
  ),
  JOB_RETENTION_SECONDS: integer(
    'Seconds after which a job that has ended is deleted with its logs; 0 for never. Images stay.',
    0,
    0,
    10 * YEAR,
  ),
  JOB_UNOWNED_SECONDS: integer(
    'Seconds after which what runs or lies about of a job without a record is removed. Whoever restores an old database has so long to notice.',
    600,
    0,
    WEEK,
  ),
  JOB_KIWI_DIR: text(
    'Directory for the Python environment with KIWI-NG, in which recipes are built. The first create job makes it, or `npm run setup:create`. Unset: `kiwi` below STATE_DIR.',
  ),
  JOB_EMULATION: flag(
    'Whether programs of images of another architecture are run by qemu-user. The first job that needs it registers the emulator, for all that the kernel runs: that of the machine, or of the node or virtual machine of its pod.',
    'false',
  ),
  JOB_SIGNING_KEYS_DIR: text(
    'Directory of public keys, a file each, by which recipes may check what they install. Unset: none.',
  ),
  JOB_REPOSITORY_SECONDS: integer('Seconds in which all repositories of a recipe have to answer.', 500, 1, WEEK),
  JOB_RECIPE_MAX_MIB: integer('Largest unpacked recipe, MiB.', 2048, 1, 1_048_576),
  JOB_RECIPE_MAX_ENTRIES: integer('Most files, directories and links of a recipe.', 50_000, 1, 10_000_000),
  JOB_SQUASHFS_COMPRESSION: choice(
    'Compression of new images; `source` keeps that of the image that was customized, and is gzip for an image that is built.',
    ['source', 'gzip', 'zstd', 'xz', 'lz4', 'lzo'],
    'source',
  ),
  JOB_SQUASHFS_GZIP_LEVEL: integer(
    'gzip level of new images. 9 takes six times as long as 6 and saves 0.6 %.',
    6,
    1,
    9,
  ),
  JOB_SQUASHFS_ZSTD_LEVEL: integer('zstd level of new images. 15 takes 25 times as long as 3 and saves 9 %.', 3, 1, 22),
  JOB_PACK_MEMORY_MIB: integer('Memory that packing one image may take, MiB.', 512, 64, 1_048_576),
  JOB_PACK_PROCESSORS: integer('Processors that packing one image may take; 0 for all.', 0, 0, 1024),
  JOB_DISK_RESERVE_MIB: integer(
    'Free space below which local jobs and the embedded store refuse to write, MiB.',
    64,
    0,
    1_048_576,
  ),
} as const;

/**
 * Every variable that the server reads, once. Names that the original server knows keep its meaning.
 * docs/settings.md is made from this table.
 */
export const ENV = variables satisfies Record<string, EnvVariable>;

export type EnvName = keyof typeof ENV;

/** The value that a kind of variable is read as. */
type Value<Kind> = Kind extends { kind: 'integer' }
  ? number
  : Kind extends { kind: 'boolean' }
    ? boolean
    : Kind extends { kind: 'boolean-or-path' }
      ? boolean | string
      : Kind extends { kind: 'ports' }
        ? { first: number; last: number }
        : Kind extends { kind: 'json' }
          ? object
          : Kind extends { kind: 'choice'; of: readonly (infer Choice)[] }
            ? Choice
            : string;

/** The values of all variables; undefined where one is unset and has no default. */
export type EnvValues = { [Name in EnvName]: Value<(typeof ENV)[Name]['type']> };
