import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { link, open, rm } from 'node:fs/promises';
import { pipeline } from 'node:stream/promises';
import { type ArtifactInfo, NoSuchArtifact } from '../artifacts/artifact-store.js';
import { fetchRanges } from './fetch-ranges.js';
import { JobFailure } from './job-failure.js';
import type { PhaseContext } from './phases/phase.js';

/** How a source is called in reasons. */
export interface SourceName {
  /** As `the rootfs of the source image`. */
  what: string;
  /** What gave its md5, as `its manifest`. */
  witness: string;
}

/**
 * Brings the artifact that a job starts from to a file, whole and verified.
 * @throws JobFailure where it was removed, replaced or damaged, or the disk is too small
 */
export async function fetchSource(context: PhaseContext, name: SourceName, target: string): Promise<void> {
  await rm(target, { force: true });
  const md5 = (await linkStored(context, target)) ?? (await download(context, name, target));
  refuseOther(context.job.source.md5, md5, name);
  context.log('fetched', { bytes: context.job.source.size, md5 });
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
async function download(context: PhaseContext, { what }: SourceName, target: string): Promise<string> {
  const { job, disk, ims, log } = context;
  const { artifact, size, etag } = job.source;
  const store = await context.openStore();
  const head = () => store.head(artifact).catch((error: unknown) => refuseMissing(error, what));
  refuseChanged(await head(), etag, what);
  await disk.expectFree(size);
  log('downloads', { bytes: size });
  const file = await open(target, 'wx', 0o600);
  try {
    const md5 = await fetchRanges(store, artifact, size, file, (done) =>
      ims.reportProgress({ stage: 'download', done, total: size }),
    );
    // An artifact that was replaced meanwhile would be a mixture of two.
    refuseChanged(await head(), etag, what);
    return md5;
  } finally {
    await file.close();
  }
}

function refuseMissing(error: unknown, what: string): never {
  if (!(error instanceof NoSuchArtifact)) throw error;
  throw new JobFailure(`${what} was removed from the artifact store after the job was created`);
}

function refuseChanged({ etag }: ArtifactInfo, wanted: string, what: string): void {
  if (etag !== wanted)
    throw new JobFailure(`${what} was replaced after the job was created: start the job again to use the new one`);
}

function refuseOther(wanted: string | null, md5: string, { what, witness }: SourceName): void {
  if (wanted && wanted !== md5)
    throw new JobFailure(`${what} has the md5 ${md5}, but ${witness} says ${wanted}: it is damaged, upload it again`);
}
