import type { FileHandle } from 'node:fs/promises';
import type { JobSpec } from '../protocol/job-spec.js';
import { isMissing, listInRoot, NotAFile, openInRoot } from './in-root.js';
import { JobFailure } from './job-failure.js';

/** The files of an image that a node is booted with beside its rootfs, opened. */
export interface BootFiles {
  kernel: FileHandle;
  initrd: FileHandle;
  /** Null where the image has none, which is fine. */
  parameters: FileHandle | null;
  close(): Promise<void>;
}

/**
 * Opens kernel, initrd and kernel parameters in `/boot` of an image root; links are followed inside of the root only.
 * @throws JobFailure where the kernel or the initrd is not there: it lists what is
 */
export async function openBootFiles(root: string, job: JobSpec): Promise<BootFiles> {
  const opened: FileHandle[] = [];
  const close = async () => void (await Promise.all(opened.map((file) => file.close())));
  const open = async (what: string, name: string) => {
    const file = await findBootFile(root, what, name);
    if (file) opened.push(file);
    return file;
  };
  try {
    return {
      kernel: (await open('kernel', job.kernel_file_name)) ?? (await refuse(root, 'kernel', job.kernel_file_name)),
      initrd: (await open('initrd', job.initrd_file_name)) ?? (await refuse(root, 'initrd', job.initrd_file_name)),
      parameters: await open('kernel parameters', job.kernel_parameters_file_name),
      close,
    };
  } catch (error) {
    await close();
    throw error;
  }
}

async function findBootFile(root: string, what: string, name: string): Promise<FileHandle | null> {
  return openInRoot(root, `boot/${name}`).catch((error: unknown) => {
    if (isMissing(error)) return null;
    if (!(error instanceof NotAFile)) throw error;
    throw new JobFailure(`the ${what} /boot/${name} of the image is not a regular file`);
  });
}

/** Names in `/boot` that a reason lists at most. */
const LISTED = 50;

async function refuse(root: string, what: 'kernel' | 'initrd', name: string): Promise<never> {
  const names = await listInRoot(root, 'boot').catch((error: unknown) => {
    if (!isMissing(error)) throw error;
    return null;
  });
  const holds = names === null ? 'there is no /boot' : `/boot holds ${listOf(names)}`;
  throw new JobFailure(
    `the image has no ${what} /boot/${name}; ${holds}. Give the right name as ${what}_file_name, or add the file.`,
  );
}

function listOf(names: string[]): string {
  if (!names.length) return 'nothing';
  const listed = names.toSorted().slice(0, LISTED).join(', ');
  return names.length > LISTED ? `${listed} and ${names.length - LISTED} more` : listed;
}
