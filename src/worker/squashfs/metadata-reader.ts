import { BadSquashfs } from './bad-squashfs.js';
import type { Codec } from './codec.js';
import type { ImageFile } from './image-file.js';
import type { MetadataReference } from './superblock.js';

/** Bytes in a block of metadata; only the last of a table has less. */
export const METADATA_SIZE = 8192;
/** In the length of a block of metadata: it is stored as it is. */
export const METADATA_UNCOMPRESSED = 0x8000;
/** Most bytes of one table, unpacked: an image with three million files needs less. */
const TABLE_LIMIT = 128 * 1024 * 1024;

/** A table that is made of blocks of metadata, unpacked. */
export class MetadataTable {
  constructor(
    readonly content: Buffer,
    private readonly what: string,
    /** Where each block begins: in the image, from the start of the table, and unpacked. */
    private readonly blocks: ReadonlyMap<number, number>,
  ) {}

  /**
   * Where in `content` a reference leads.
   * @throws BadSquashfs
   */
  resolve({ block, offset }: MetadataReference): number {
    const start = this.blocks.get(block);
    if (start === undefined || offset > METADATA_SIZE)
      throw new BadSquashfs(`a reference leads nowhere in its ${this.what} table`);
    return start + offset;
  }
}

/** Reads metadata: blocks of up to 8 KiB, each compressed by itself (squashfs.rst, section 3). */
export class MetadataReader {
  constructor(
    private readonly file: ImageFile,
    private readonly codec: Codec,
    /** Bytes of the image. */
    private readonly size: number,
  ) {}

  /**
   * Reads all blocks between two positions of the image.
   * @throws BadSquashfs
   */
  table(start: number, end: number, what: string): MetadataTable {
    const stored = this.file.read(start, Math.min(end - start, TABLE_LIMIT));
    const positions = blockPositions(stored, what);
    if ((positions.length - 1) * METADATA_SIZE > TABLE_LIMIT || end - start > TABLE_LIMIT)
      throw new BadSquashfs(`its ${what} table is larger than that of any sane image`);
    const content = Buffer.alloc(positions.length * METADATA_SIZE);
    const blocks = new Map<number, number>();
    let length = 0;
    for (const position of positions) {
      if (length % METADATA_SIZE > 0) throw new BadSquashfs(`a block in the midst of its ${what} table is not full`);
      blocks.set(position, length);
      length += this.unpack(stored, position, what).copy(content, length);
    }
    // A directory may be said to begin where the table ends, as long as it is empty.
    blocks.set(end - start, length);
    return new MetadataTable(content.subarray(0, length), what, blocks);
  }

  /**
   * Reads a table of entries of one size, whose blocks are found by an index at its end.
   * @param index position of the index
   * @throws BadSquashfs
   */
  indexed(index: number, entries: number, entrySize: number, what: string): { content: Buffer; start: number } {
    const length = entries * entrySize;
    if (length > TABLE_LIMIT) throw new BadSquashfs(`its ${what} table is larger than that of any sane image`);
    const positions = this.positions(index, Math.ceil(length / METADATA_SIZE), what);
    const content = Buffer.alloc(length);
    let filled = 0;
    for (const position of positions) filled += this.block(position, what).copy(content, filled);
    if (filled !== length) throw new BadSquashfs(`its ${what} table has another length than it says`);
    return { content, start: positions[0] ?? index };
  }

  private positions(index: number, count: number, what: string): number[] {
    if (index + count * 8 > this.size) throw new BadSquashfs(`the index of its ${what} table lies outside of it`);
    const bytes = this.file.read(index, count * 8);
    const positions = Array.from({ length: count }, (_, number) => Number(bytes.readBigUInt64LE(number * 8)));
    // One block that counts for many would make a large table of a small image.
    if (positions.some((position, number) => position >= (positions[number + 1] ?? index)))
      throw new BadSquashfs(`the index of its ${what} table is not in order`);
    return positions;
  }

  private block(position: number, what: string): Buffer {
    return this.unpack(this.file.read(position, Math.min(METADATA_SIZE + 2, this.size - position)), 0, what);
  }

  private unpack(stored: Buffer, position: number, what: string): Buffer {
    const length = storedLength(stored, position, what);
    const block = stored.subarray(position + 2, position + 2 + length);
    const isCompressed = (stored.readUInt16LE(position) & METADATA_UNCOMPRESSED) === 0;
    const content = isCompressed ? this.codec.decompress(block, METADATA_SIZE) : block;
    if (content.length === 0) throw new BadSquashfs(`a block of its ${what} table is empty`);
    return content;
  }
}

/** Where blocks begin in a table as it is stored. */
function blockPositions(stored: Buffer, what: string): number[] {
  const positions: number[] = [];
  for (let position = 0; position < stored.length; position += 2 + storedLength(stored, position, what))
    positions.push(position);
  return positions;
}

/** Bytes that a block takes behind the two that tell so. */
function storedLength(stored: Buffer, position: number, what: string): number {
  const length = position + 2 > stored.length ? 0 : stored.readUInt16LE(position) & ~METADATA_UNCOMPRESSED;
  if (length === 0 || length > METADATA_SIZE || position + 2 + length > stored.length)
    throw new BadSquashfs(`a block of its ${what} table has an impossible length`);
  return length;
}
