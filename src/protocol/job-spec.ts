import type { Arch } from './arch.js';
import type { ArtifactLocation } from './artifact-link.js';

/** Phases of a customize job. A phase is a process of the worker: a container in a pod, a sandboxed child on one machine. */
export const CUSTOMIZE_PHASES = ['fetch-image', 'shell', 'finish'] as const;
export type CustomizePhase = (typeof CUSTOMIZE_PHASES)[number];
/** Phases of a create job. The shell is there where a failed build is to be looked at. */
export const CREATE_PHASES = [
  'fetch-recipe',
  'wait-for-repos',
  'build-ca-rpm',
  'build-image',
  'shell',
  'finish',
] as const;
export type CreatePhase = (typeof CREATE_PHASES)[number];
export type PhaseName = CustomizePhase | CreatePhase;
/** Names of all phases. */
export const PHASES: readonly PhaseName[] = [...new Set<PhaseName>([...CUSTOMIZE_PHASES, ...CREATE_PHASES])];

/** Compression of a SquashFS image, by the names that mksquashfs takes. */
export type Compression = 'gzip' | 'zstd' | 'xz' | 'lz4' | 'lzo';

/** How a new image is packed. */
export interface Packing {
  /** `source` keeps the compression of the source image. */
  compression: Compression | 'source';
  gzipLevel: number;
  zstdLevel: number;
  memoryMib: number;
  /** 0 for all. */
  processors: number;
}

/** The ssh environment in which the user changes the image root. */
export interface ShellSpec {
  /** Name of the ssh container, as the request gave it. */
  name: string;
  /** Whether the user stands inside of the image root at once. */
  jail: boolean;
  /** Address and port on the machine on which sshd is reached. */
  listenAddress: string;
  port: number;
}

/** The artifact that a job starts from: the rootfs of an image, or the archive of a recipe. */
export interface SourceSpec {
  artifact: ArtifactLocation;
  etag: string;
  /** Bytes. */
  size: number;
  /** md5 of the content in hex, where the manifest or the artifact gives one. */
  md5: string | null;
  /** A file on this machine that holds the artifact and never changes, where the store is embedded: used in place of a download. */
  file: string | null;
}

/** A value that the templates of a recipe are filled with. */
export interface TemplateValue {
  key: string;
  value: string;
}

/** The recipe that a create job builds from, as it was when the job was made. */
export interface RecipeSpec {
  id: string;
  name: string;
  template_dictionary: TemplateValue[];
}

/** What an archive may hold at most. */
export interface UnpackLimits {
  /** Bytes of all files together. */
  maxBytes: number;
  /** Files, directories and links together. */
  maxEntries: number;
}

/** What the specifications of all jobs have. */
interface AnyJobSpec {
  job_id: string;
  arch: Arch;
  image_root_archive_name: string;
  kernel_file_name: string;
  initrd_file_name: string;
  kernel_parameters_file_name: string;
  require_dkms: boolean;
  /** GiB that the job may write on disk. */
  build_env_size: number;
  /** GiB of memory. */
  job_mem_size: number;
  /** One OpenSSH public key line, or several. */
  public_key: string;
  source: SourceSpec;
  packing: Packing;
  /** Bucket that the new image goes to. */
  bucket: string;
  /** PEM of the site CA, or null where the site has none. */
  ca_certificate: string | null;
  /** Base url of the server, with or without a path prefix, without a slash at its end. */
  server_url: string;
  /** Sent with every request (`JOB_TOKEN_HEADER`); null for a job that was made before there were tokens. */
  token: string | null;
}

/** A job that changes an image in a shell. */
export interface CustomizeSpec extends AnyJobSpec {
  job_type: 'customize';
  shell: ShellSpec;
}

/** A job that builds an image from a recipe. */
export interface CreateSpec extends AnyJobSpec {
  job_type: 'create';
  recipe: RecipeSpec;
  /** Where a failed build can be looked at; null where nobody asked for that. */
  shell: ShellSpec | null;
  unpackLimits: UnpackLimits;
  /** Seconds in which all repositories of the recipe have to answer. */
  repositorySeconds: number;
  /** Seconds after which the build is ended; 0 for never. */
  buildSeconds: number;
}

/**
 * All that the worker needs to know of a job, written once when the job is launched. Phases read it from `job.json` in the job
 * directory. It holds values, never text for a shell or for a configuration file.
 */
export type JobSpec = CustomizeSpec | CreateSpec;
