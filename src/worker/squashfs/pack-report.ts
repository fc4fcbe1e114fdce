import type { Stage } from './stopwatch.js';

/** What a packing did. */
export interface ImageReport {
  /** Bytes of the new image, without padding. */
  bytes: number;
  /** Bytes that were taken from the source as they were. */
  reusedBytes: number;
  /** Bytes of blocks that were compressed anew. */
  newBytes: number;
  /** Bytes of metadata. */
  metadataBytes: number;
  /** Contents that were compressed anew. */
  newFiles: number;
  /** See `PackableTree`. */
  droppedXattrs: number;
  /** What took how long, in seconds. */
  seconds: Record<Stage, number>;
}
