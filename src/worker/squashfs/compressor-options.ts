import { constants } from 'node:zlib';
import type { Compression } from '../../protocol/job-spec.js';
import { SUPERBLOCK_SIZE } from './superblock.js';

/** Levels of mksquashfs where nobody says otherwise. */
const DEFAULT_LEVELS: Partial<Record<Compression, number>> = { gzip: constants.Z_BEST_COMPRESSION, zstd: 15 };

/**
 * The options that an image gives for its compression, as mksquashfs writes them (squashfs binary format, "Compression Options"); empty where
 * they are the defaults.
 */
export function encodeCompressorOptions(compression: Compression, level: number | null): Buffer {
  // The kernel reads lz4 only of images that say which of its formats it is.
  if (compression === 'lz4') return u32s(1, 0);
  if (level === null || level === DEFAULT_LEVELS[compression]) return Buffer.alloc(0);
  const WINDOW_SIZE = 15;
  if (compression === 'gzip') return u32s(level, WINDOW_SIZE);
  return compression === 'zstd' ? u32s(level) : Buffer.alloc(0);
}

/** Position of the first byte of data in an image with these options: they follow the superblock, with their length in front. */
export function dataStartOf(compressorOptions: Buffer): number {
  return SUPERBLOCK_SIZE + (compressorOptions.length ? compressorOptions.length + 2 : 0);
}

function u32s(...values: number[]): Buffer {
  return Buffer.from(Uint32Array.from(values).buffer);
}
