import type { ByteRange } from '../artifacts/artifact-store.js';

/** Stretch of a new artifact that stands in another, byte for byte. */
export interface CopiedRange {
  /** Position in the new artifact. */
  start: number;
  /** Position in the other. */
  source: number;
  /** Bytes. */
  length: number;
}

/** A part of an upload. */
export interface PlannedPart extends ByteRange {
  /** Where in the source the same bytes begin; null for a part that has to be sent. */
  source: number | null;
}

/** Of the size of other parts, which have at least 8 MiB: that of the smallest that are copied. S3 takes no part of less than 5 MiB. */
const COPIED_SHARE = 5 / 8;

/** Bytes of the smallest parts where stretches are copied, for those of a plain upload. */
export function copiedPartSize(partSize: number): number {
  return partSize * COPIED_SHARE;
}

/**
 * Divides the beginning of an artifact into parts: stretches that are long enough are copied from the source, what lies between is sent. All
 * parts have at least `partSize` bytes, so that there are never more than in a plain upload, and fewer than four times as many.
 * The first part is one to be sent, since an image begins with what is written last. What follows the last planned part is not planned.
 * @param copied sorted by `start`, none overlaps the next
 * @param partSize bytes
 */
export function planParts(copied: readonly CopiedRange[], partSize: number): PlannedPart[] {
  const parts: PlannedPart[] = [];
  let position = 0;
  for (const { start, source, length } of copied) {
    // What is to be sent before this stretch takes as much of it as it needs to be a part.
    const from = position === start && position > 0 ? start : Math.max(start, position + partSize);
    const end = start + length;
    if (end - from < partSize) continue;
    parts.push(...divide(position, from, partSize, null));
    parts.push(...divide(from, end, 2 * partSize, source + (from - start)));
    position = end;
  }
  return parts;
}

/** Parts of the bytes from `start` to before `end`, each of at least `size` bytes where there are so many, and fewer than twice as many. */
function divide(start: number, end: number, size: number, source: number | null): PlannedPart[] {
  const count = end === start ? 0 : Math.max(Math.floor((end - start) / size), 1);
  const bounds = Array.from({ length: count + 1 }, (_, index) => start + Math.floor(((end - start) * index) / count));
  return bounds.slice(0, -1).map((from, index) => ({
    start: from,
    end: bounds[index + 1]! - 1,
    source: source === null ? null : source + (from - start),
  }));
}
