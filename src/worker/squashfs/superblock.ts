import { open } from 'node:fs/promises';
import type { Compression } from '../../protocol/job-spec.js';
import { BadSquashfs } from './bad-squashfs.js';

/** Where something lies in a table of metadata: the start of its block, as bytes from the start of the table, and bytes into that block. */
export interface MetadataReference {
  block: number;
  offset: number;
}

/**
 * The first 96 bytes of a SquashFS image (Linux, Documentation/filesystems/squashfs.rst, and `struct squashfs_super_block` of
 * fs/squashfs/squashfs_fs.h). Positions of tables are bytes from the start of the image; null where the image has no such table.
 */
export interface Superblock {
  compression: Compression;
  /** Bytes of a data block. */
  blockSize: number;
  /** Bytes of the image; what follows is padding. */
  size: number;
  inodes: number;
  fragments: number;
  ids: number;
  /** When the image was made, seconds since 1970. */
  time: number;
  /** `FLAG`, or-ed. */
  flags: number;
  root: MetadataReference;
  idTable: number;
  inodeTable: number;
  directoryTable: number;
  fragmentTable: number | null;
  exportTable: number | null;
  xattrTable: number | null;
}

/** What a superblock says of the image as a whole. Flags that only say how something was packed are left out: nothing depends on them. */
export const FLAG = {
  noFragments: 0x10,
  alwaysFragments: 0x20,
  duplicates: 0x40,
  exportable: 0x80,
  noXattrs: 0x200,
  compressorOptions: 0x400,
} as const;

export const SUPERBLOCK_SIZE = 96;
/** `hsqs`, little endian. */
const MAGIC = 0x73717368;
const COMPRESSIONS: readonly (Compression | null)[] = [null, 'gzip', null, 'lzo', 'xz', 'lz4', 'zstd'];
/** Stands for a table that is not there. */
const NONE = 0xffff_ffff_ffff_ffffn;

/** The file is not a SquashFS image that can be customized; the message completes "the rootfs …". */
export class NotSquashfs extends Error {
  constructor(why: string) {
    super(why);
    this.name = 'NotSquashfs';
  }
}

/**
 * Reads the superblock of a SquashFS image.
 * @throws NotSquashfs, BadSquashfs
 */
export async function readSuperblock(file: string): Promise<Superblock> {
  const handle = await open(file, 'r');
  try {
    const { size } = await handle.stat();
    const { buffer, bytesRead } = await handle.read(Buffer.alloc(SUPERBLOCK_SIZE), 0, SUPERBLOCK_SIZE, 0);
    return parseSuperblock(buffer.subarray(0, bytesRead), size);
  } finally {
    await handle.close();
  }
}

/**
 * @param block the first bytes of the file
 * @param fileSize bytes of the whole file
 * @throws NotSquashfs, BadSquashfs
 */
export function parseSuperblock(block: Buffer, fileSize: number): Superblock {
  if (block.length < SUPERBLOCK_SIZE || block.readUInt32LE(0) !== MAGIC)
    throw new NotSquashfs('is not a SquashFS image');
  const [major, minor] = [block.readUInt16LE(28), block.readUInt16LE(30)];
  if (major !== 4)
    throw new NotSquashfs(`is a SquashFS image of version ${major}.${minor}; only version 4 is supported`);
  const compression = COMPRESSIONS[block.readUInt16LE(20)];
  if (!compression) throw new NotSquashfs('is compressed by a method that no current tool packs with');
  const size = Number(block.readBigUInt64LE(40));
  if (size > fileSize) throw new NotSquashfs(`is cut off: it has ${fileSize} of ${size} bytes`);
  const superblock = { compression, size, ...countsOf(block), ...tablesOf(block, size) };
  refuseOddBlockSize(superblock.blockSize, block.readUInt16LE(22));
  return superblock;
}

function countsOf(block: Buffer) {
  return {
    inodes: block.readUInt32LE(4),
    time: block.readUInt32LE(8),
    blockSize: block.readUInt32LE(12),
    fragments: block.readUInt32LE(16),
    flags: block.readUInt16LE(24),
    ids: block.readUInt16LE(26),
  };
}

function tablesOf(block: Buffer, size: number) {
  const root = block.readBigUInt64LE(32);
  const find = (offset: number, name: string) => {
    const position = block.readBigUInt64LE(offset);
    if (position === NONE) return null;
    if (position < SUPERBLOCK_SIZE || position >= size) throw new BadSquashfs(`its ${name} table lies outside of it`);
    return Number(position);
  };
  const get = (offset: number, name: string) => {
    const position = find(offset, name);
    if (position === null) throw new BadSquashfs(`it has no ${name} table`);
    return position;
  };
  return {
    root: referenceOf(root),
    idTable: get(48, 'id'),
    xattrTable: find(56, 'xattr'),
    inodeTable: get(64, 'inode'),
    directoryTable: get(72, 'directory'),
    fragmentTable: find(80, 'fragment'),
    exportTable: find(88, 'export'),
  };
}

/** A reference as it stands in 64 bits: the offset takes the lower 16. */
export function referenceOf(value: bigint): MetadataReference {
  return { block: Number(value >> 16n), offset: Number(value & 0xffffn) };
}

/** The opposite of `referenceOf`. */
export function encodeReference({ block, offset }: MetadataReference): bigint {
  return (BigInt(block) << 16n) | BigInt(offset);
}

function refuseOddBlockSize(blockSize: number, log: number): void {
  if (log < 12 || log > 20 || blockSize !== 2 ** log)
    throw new BadSquashfs(`a block size of ${blockSize} bytes is not a power of two between 4 KiB and 1 MiB`);
}

/** A superblock as bytes. */
export function encodeSuperblock(superblock: Superblock): Buffer {
  const block = Buffer.alloc(SUPERBLOCK_SIZE);
  const { inodes, time, blockSize, fragments } = superblock;
  [MAGIC, inodes, time, blockSize, fragments].forEach((value, index) => block.writeUInt32LE(value, index * 4));
  const { compression, flags, ids } = superblock;
  const shorts = [COMPRESSIONS.indexOf(compression), Math.log2(blockSize), flags, ids, 4, 0];
  shorts.forEach((value, index) => block.writeUInt16LE(value, 20 + index * 2));
  const { size, idTable, xattrTable, inodeTable, directoryTable, fragmentTable, exportTable } = superblock;
  const tables = [size, idTable, xattrTable, inodeTable, directoryTable, fragmentTable, exportTable];
  block.writeBigUInt64LE(encodeReference(superblock.root), 32);
  tables.forEach((value, index) => block.writeBigUInt64LE(value === null ? NONE : BigInt(value), 40 + index * 8));
  return block;
}
