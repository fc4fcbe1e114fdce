import { createHash } from 'node:crypto';
import type { FileHandle } from 'node:fs/promises';
import { buffer } from 'node:stream/consumers';
import { type ArtifactStore, ArtifactStoreFailure, type ByteRange } from '../artifacts/artifact-store.js';
import { partRanges } from '../artifacts/part-layout.js';
import type { ArtifactLocation } from '../protocol/artifact-link.js';

/** Bytes of one request. */
const RANGE = 8 * 1024 * 1024;
/** Requests on their way at once; each holds a range in memory. */
const PARALLEL = 4;
/** Times that a range is asked for whose connection broke on the way. */
const TRIES = 4;
/** Milliseconds between two calls of `onProgress`. */
const PROGRESS_INTERVAL = 2000;

/**
 * Downloads an artifact into a file by ranges, several at a time, and computes the md5 of the whole on the way.
 * @param size of the artifact, bytes
 * @param onProgress gets the bytes that have arrived, every other second
 * @returns md5 in hex
 * @throws ArtifactStoreFailure, NoSuchArtifact, and what node:fs throws of a file that cannot be written
 */
export async function fetchRanges(
  store: ArtifactStore,
  location: ArtifactLocation,
  size: number,
  file: FileHandle,
  onProgress: (done: number) => Promise<void>,
): Promise<string> {
  const hash = createHash('md5');
  const ranges = partRanges(size, RANGE);
  const ask = (range: ByteRange) => {
    const content = fetchRange(store, location, range);
    // It is waited for in its turn; where an earlier one fails, nobody waits.
    content.catch(() => {});
    return content;
  };
  const pending = ranges.slice(0, PARALLEL).map(ask);
  let told = Date.now();
  for (const [index, { start, end }] of ranges.entries()) {
    const content = await pending.shift()!;
    pending.push(...ranges.slice(index + PARALLEL, index + PARALLEL + 1).map(ask));
    hash.update(content);
    await file.write(content, 0, content.length, start);
    if (Date.now() - told < PROGRESS_INTERVAL) continue;
    told = Date.now();
    await onProgress(end + 1);
  }
  return hash.digest('hex');
}

async function fetchRange(store: ArtifactStore, location: ArtifactLocation, range: ByteRange): Promise<Buffer> {
  for (let tries = 1; ; tries++) {
    try {
      return await fetchOnce(store, location, range);
    } catch (error) {
      if (!(error instanceof ArtifactStoreFailure) || tries === TRIES) throw error;
    }
  }
}

async function fetchOnce(store: ArtifactStore, location: ArtifactLocation, range: ByteRange): Promise<Buffer> {
  const content = await buffer(await store.read(location, range));
  const wanted = range.end - range.start + 1;
  if (content.length !== wanted)
    throw new ArtifactStoreFailure(`the artifact store sent ${content.length} of ${wanted} bytes`);
  return content;
}
