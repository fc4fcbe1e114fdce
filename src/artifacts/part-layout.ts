import { createHash } from 'node:crypto';
import type { ByteRange } from './artifact-store.js';

const MIB = 1024 * 1024;
const GIB = 1024 * MIB;

/**
 * Bytes of a part, and the size from which an artifact goes in parts. The same as boto3's defaults, so that an artifact has the same
 * etag whether we stored it or another client of the site did.
 */
export const PART_SIZE = 8 * MIB;
/** S3 takes no more parts than this in an artifact. */
export const MAX_PARTS = 10_000;
/** S3 copies no more than this at once, in a copy of an artifact as in a part. */
export const MAX_COPY_SIZE = 5 * GIB;

/** Part sizes that clients of S3 are known to use, the likeliest first. */
const KNOWN_PART_SIZES = [8, 16, 5, 15, 10, 32, 64, 100, 128, 25, 50, 256, 512, 1024].map((size) => size * MIB);

/** Bytes of a part for an artifact of this size: `PART_SIZE`, or as many whole MiB as keep it below `MAX_PARTS` parts. */
export function choosePartSize(size: number): number {
  return Math.max(PART_SIZE, Math.ceil(size / MAX_PARTS / MIB) * MIB);
}

/** The ranges that cover an artifact of this size, in order. */
export function partRanges(size: number, partSize: number): ByteRange[] {
  const count = Math.ceil(size / partSize);
  return Array.from({ length: count }, (_, index) => ({
    start: index * partSize,
    end: Math.min(size, (index + 1) * partSize) - 1,
  }));
}

/** Whether the etag is one of an artifact that was stored in parts: `<md5 of the parts' md5s>-<number of parts>`. */
export function isMultipart(etag: string): boolean {
  return /-\d+$/.test(etag);
}

/**
 * Bytes of a part such that a copy in parts gets the etag of its source, where the size and the number of parts in the etag tell them;
 * otherwise what we would choose ourselves.
 */
export function guessPartSize(size: number, etag: string): number {
  const count = Number(/-(\d+)$/.exec(etag)?.[1] ?? Number.NaN);
  const candidates = [choosePartSize(size), ...KNOWN_PART_SIZES];
  return candidates.find((partSize) => Math.ceil(size / partSize) === count) ?? choosePartSize(size);
}

/** The etag that S3 gives an artifact whose parts have these etags. */
export function multipartEtag(partEtags: readonly string[]): string {
  const digest = createHash('md5')
    .update(Buffer.from(partEtags.join(''), 'hex'))
    .digest('hex');
  return `${digest}-${partEtags.length}`;
}
