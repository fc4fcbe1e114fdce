import { open } from 'node:fs/promises';
import type { Compression } from '../../protocol/job-spec.js';

/** Facts of a SquashFS image, from its first 96 bytes (Documentation/filesystems/squashfs.rst, fs/squashfs/squashfs_fs.h). */
export interface Superblock {
  compression: Compression;
  /** Bytes of a data block. */
  blockSize: number;
  /** Bytes of the image; what follows is padding. */
  size: number;
}

const SUPERBLOCK_SIZE = 96;
/** `hsqs`, little endian. */
const MAGIC = 0x73717368;
const COMPRESSIONS: readonly (Compression | null)[] = [null, 'gzip', null, 'lzo', 'xz', 'lz4', 'zstd'];

/** The file is not a SquashFS image that can be customized; the message completes "the rootfs …". */
export class NotSquashfs extends Error {
  constructor(why: string) {
    super(why);
    this.name = 'NotSquashfs';
  }
}

/**
 * Reads the superblock of a SquashFS image.
 * @throws NotSquashfs
 */
export async function readSuperblock(file: string): Promise<Superblock> {
  const handle = await open(file, 'r');
  try {
    const { size } = await handle.stat();
    const { buffer, bytesRead } = await handle.read(Buffer.alloc(SUPERBLOCK_SIZE), 0, SUPERBLOCK_SIZE, 0);
    if (bytesRead < SUPERBLOCK_SIZE || buffer.readUInt32LE(0) !== MAGIC)
      throw new NotSquashfs('is not a SquashFS image');
    return checked(buffer, size);
  } finally {
    await handle.close();
  }
}

function checked(block: Buffer, fileSize: number): Superblock {
  const [major, minor] = [block.readUInt16LE(28), block.readUInt16LE(30)];
  if (major !== 4)
    throw new NotSquashfs(`is a SquashFS image of version ${major}.${minor}; only version 4 is supported`);
  const compression = COMPRESSIONS[block.readUInt16LE(20)];
  if (!compression) throw new NotSquashfs('is compressed by a method that no current tool packs with');
  const size = Number(block.readBigUInt64LE(40));
  if (size > fileSize) throw new NotSquashfs(`is cut off: it has ${fileSize} of ${size} bytes`);
  return { compression, blockSize: block.readUInt32LE(12), size };
}
