import { rename } from 'node:fs/promises';
import { mayBeArchive } from '../archive/archive-content.js';
import { fetchSource } from '../fetch-source.js';
import { JobFailure } from '../job-failure.js';
import { NotSquashfs, readSuperblock } from '../squashfs/superblock.js';
import type { PhaseContext } from './phase.js';

const ROOTFS = { what: 'the rootfs of the source image', witness: 'its manifest' };

/** Brings the rootfs of the source image to the job directory, whole and verified. */
export async function fetchImage(context: PhaseContext): Promise<void> {
  const { ims, directory } = context;
  await ims.report({ status: 'fetching_image' });
  const fetched = `${directory.source}.part`;
  await fetchSource(context, ROOTFS, fetched);
  await refuseOther(fetched);
  await rename(fetched, directory.source);
}

/** Takes SquashFS images and tar archives, by what they are and not by their names. */
async function refuseOther(file: string): Promise<void> {
  if (await mayBeArchive(file)) return;
  await readSuperblock(file).catch((error: unknown) => {
    throw error instanceof NotSquashfs ? new JobFailure(`the rootfs of the source image ${error.message}`) : error;
  });
}
