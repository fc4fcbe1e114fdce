import { chmodSync, chownSync } from 'node:fs';
import { mkdir, readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { BadArchive } from './archive/bad-archive.js';
import { unpackTar } from './archive/unpack-tar.js';
import type { Commands } from './commands.js';
import type { Disk } from './disk.js';
import type { JobDirectory } from './job-directory.js';
import { JobFailure } from './job-failure.js';
import type { Log } from './log.js';
import { XATTR_PREFIXES } from './squashfs/xattrs.js';

/** Most files of a root: an image with as many needs gigabytes of memory to be packed. */
const ENTRY_LIMIT = 10_000_000;
const FEWER_FILES = 'a disk with more free inodes is needed, or an archive with fewer files';

/**
 * Unpacks the rootfs of the source image, which is a tar archive, into the tree of the job: with owners, modes, times, devices, hard links,
 * holes and extended attributes. What an earlier try has left there goes.
 * @throws JobFailure where the archive is damaged, holds what it must not, or more than the disk takes
 */
export async function unpackRootArchive(
  { source, tree }: JobDirectory,
  commands: Commands,
  disk: Disk,
  log: Log,
): Promise<void> {
  log('the rootfs is a tar archive, and is unpacked');
  await emptyDirectory(tree);
  const limits = {
    maxBytes: Math.max(await disk.free(), 0),
    maxEntries: Math.min(await disk.freeFiles(), ENTRY_LIMIT),
  };
  try {
    const policy = {
      limits,
      remedy: { bytes: disk.remedy, entries: FEWER_FILES },
      keepsAll: true,
      xattrs: XATTR_PREFIXES,
    };
    const { unpacked } = await unpackTar(source, tree, policy, commands);
    log('unpacked the rootfs', { ...unpacked });
  } catch (error) {
    throw error instanceof BadArchive
      ? new JobFailure(`the rootfs of the source image ${error.message}`, { cause: error })
      : error;
  }
}

/** In a pod the tree is a mount, and must stay what it is. An archive without an entry for its root gets a usual one. */
async function emptyDirectory(path: string): Promise<void> {
  await mkdir(path, { recursive: true });
  for (const name of await readdir(path)) await rm(join(path, name), { recursive: true, force: true });
  chownSync(path, 0, 0);
  chmodSync(path, 0o755);
}
