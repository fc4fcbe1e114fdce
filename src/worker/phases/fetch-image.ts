import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { link, open, rename, rm } from 'node:fs/promises';
import { pipeline } from 'node:stream/promises';
import { type ArtifactInfo, NoSuchArtifact } from '../../artifacts/artifact-store.js';
import { fetchRanges } from '../fetch-ranges.js';
import { JobFailure } from '../job-failure.js';
import { NotSquashfs, readSuperblock } from '../squashfs/superblock.js';
import type { PhaseContext } from './phase.js';

/** Brings the rootfs of the source image to the job directory, whole and verified. */
export async function fetchImage(context: PhaseContext): Promise<void> {
  const { ims, directory, log } = context;
  await ims.report({ status: 'fetching_image' });
  const fetched = `${directory.source}.part`;
  await rm(fetched, { force: true });
  const md5 = (await linkStored(context, fetched)) ?? (await download(context, fetched));
  refuseOther(context.job.source.md5, md5);
  await refuseNotSquashfs(fetched);
  await rename(fetched, directory.source);
  log('fetched', { bytes: context.job.source.size, md5 });
}

/**
 * Takes an artifact of a store on the same disk as it is: a hard link, which stays whatever the store does with the artifact.
 * Returns its md5, or null where it cannot be linked.
 */
async function linkStored({ job, log }: PhaseContext, target: string): Promise<string | null> {
  const { file, etag, md5 } = job.source;
  if (!file) return null;
  try {
    await link(file, target);
  } catch (error) {
    log('the stored artifact cannot be used in place; it is downloaded', { error: (error as Error).message });
    return null;
  }
  log('the stored artifact is used in place');
  // The store has computed the etag itself; where it is the md5 of the content, nothing is left to compare.
  return md5 && etag === md5 ? md5 : digest(target);
}

async function digest(file: string): Promise<string> {
  const hash = createHash('md5');
  await pipeline(createReadStream(file, { highWaterMark: 1 << 20 }), hash);
  return hash.digest('hex');
}

/** Downloads the artifact; returns its md5. */
async function download({ job, store, disk, ims, log }: PhaseContext, target: string): Promise<string> {
  const { artifact, size, etag } = job.source;
  refuseChanged(await store.head(artifact).catch(refuseMissing), etag);
  await disk.expectFree(size);
  log('downloads', { bytes: size });
  const file = await open(target, 'wx', 0o600);
  try {
    const md5 = await fetchRanges(store, artifact, size, file, (done) =>
      ims.reportProgress({ stage: 'download', done, total: size }),
    );
    // An artifact that was replaced meanwhile would be a mixture of two.
    refuseChanged(await store.head(artifact).catch(refuseMissing), etag);
    return md5;
  } finally {
    await file.close();
  }
}

function refuseMissing(error: unknown): never {
  if (!(error instanceof NoSuchArtifact)) throw error;
  throw new JobFailure('the rootfs of the source image was removed from the artifact store after the job was created');
}

function refuseChanged({ etag }: ArtifactInfo, wanted: string): void {
  if (etag !== wanted)
    throw new JobFailure(
      'the rootfs of the source image was replaced after the job was created: start the job again to use the new one',
    );
}

function refuseOther(wanted: string | null, md5: string): void {
  if (wanted && wanted !== md5)
    throw new JobFailure(
      `the rootfs of the source image has the md5 ${md5}, but its manifest says ${wanted}: it is damaged, upload it again`,
    );
}

async function refuseNotSquashfs(file: string): Promise<void> {
  await readSuperblock(file).catch((error: unknown) => {
    throw error instanceof NotSquashfs ? new JobFailure(`the rootfs of the source image ${error.message}`) : error;
  });
}
