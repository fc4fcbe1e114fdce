import type { Arch } from './arch.js';
import type { ArtifactLocation } from './artifact-link.js';
import type { JobType } from './job-status.js';

/** Names of the phases of a job. A phase is a process of the worker: a container in a pod, a sandboxed child on one machine. */
export const PHASES = ['fetch-image', 'shell', 'finish'] as const;
export type PhaseName = (typeof PHASES)[number];

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

/** The image that a customize job starts from. */
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

/**
 * All that the worker needs to know of a job, written once when the job is launched. Phases read it from `job.json` in the job
 * directory. It holds values, never text for a shell or for a configuration file.
 */
export interface JobSpec {
  job_id: string;
  job_type: JobType;
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
  shell: ShellSpec;
  packing: Packing;
  /** Bucket that the new image goes to. */
  bucket: string;
  /** PEM of the site CA, or null where the site has none. */
  ca_certificate: string | null;
  /** Base url of the server, with or without a path prefix, without a slash at its end. */
  server_url: string;
}
