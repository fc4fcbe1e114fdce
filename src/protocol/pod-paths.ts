import type { JobType } from './job-status.js';
import { BUILD_FILE, IMAGE_ROOT_IN_SHELL } from './signals.js';

/** Where the containers of a job's pod find what they share. */
export const POD_PATHS = {
  /** The job directory. */
  directory: '/var/lib/ims/job',
  /** Public keys by which packages are checked. */
  signingKeys: '/signing-keys',
  /** Directory of the specification, which nobody can write to. */
  spec: '/etc/ims/job',
} as const;

/** Names in the job directory, as the worker gives them. */
export const JOB_FILES = {
  source: 'source.sqsh',
  layer: 'layer',
  tree: 'tree',
  pristine: 'pristine',
  handOver: 'hand-over',
} as const;

/** A part of the job directory that the container of the shell is given. */
export interface LinkedPath {
  /** Name in the job directory. */
  subPath: string;
  mountPath: string;
  readOnly: boolean;
}

/**
 * The parts of the job directory that the container of the shell is given; the rest is hidden from its user. An unpacked tree shows where
 * users expect the image root, since nothing can be mounted there where it had to be unpacked.
 */
export function linkedPaths(jobType: JobType): LinkedPath[] {
  const { directory } = POD_PATHS;
  const part = (subPath: string, readOnly = false) => ({ subPath, mountPath: `${directory}/${subPath}`, readOnly });
  return [
    // What was built was never an image; how the build ended decides whether there is a shell.
    ...(jobType === 'customize' ? [part(JOB_FILES.source, true), part(JOB_FILES.layer)] : [part(BUILD_FILE, true)]),
    part(JOB_FILES.tree),
    part(JOB_FILES.pristine),
    part(JOB_FILES.handOver),
    { subPath: JOB_FILES.tree, mountPath: IMAGE_ROOT_IN_SHELL, readOnly: false },
  ];
}
