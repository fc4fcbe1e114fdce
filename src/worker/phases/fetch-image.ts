import { rename } from 'node:fs/promises';
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
  await refuseNotSquashfs(fetched);
  await rename(fetched, directory.source);
}

async function refuseNotSquashfs(file: string): Promise<void> {
  await readSuperblock(file).catch((error: unknown) => {
    throw error instanceof NotSquashfs ? new JobFailure(`the rootfs of the source image ${error.message}`) : error;
  });
}
