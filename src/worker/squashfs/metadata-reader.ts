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
    const parts: Buffer[] = [];
    const blocks = new Map<number, number>();
    let length = 0;
    for (let position = start; position < end;) {
      const { content, next } = this.block(position, what);
      blocks.set(position - start, length);
      parts.push(content);
      length += content.length;
      if (length > TABLE_LIMIT) throw new BadSquashfs(`its ${what} table is larger than that of any sane image`);
      if (next > end) throw new BadSquashfs(`its ${what} table runs into the next`);
      if (content.length < METADATA_SIZE && next < end)
        throw new BadSquashfs(`a block in the midst of its ${what} table is not full`);
      position = next;
    }
    // A directory may be said to begin where the table ends, as long as it is empty.
    if (!blocks.has(end - start)) blocks.set(end - start, length);
    return new MetadataTable(Buffer.concat(parts), what, blocks);
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
    for (const position of positions) filled += this.block(position, what).content.copy(content, filled);
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

  private block(position: number, what: string): { content: Buffer; next: number } {
    const bytes = this.file.read(position, Math.min(METADATA_SIZE + 2, Math.max(this.size - position, 2)));
    const header = bytes.readUInt16LE(0);
    const length = header & ~METADATA_UNCOMPRESSED;
    if (length === 0 || length > METADATA_SIZE || length + 2 > bytes.length)
      throw new BadSquashfs(`a block of its ${what} table has an impossible length`);
    const stored = bytes.subarray(2, 2 + length);
    const content = header & METADATA_UNCOMPRESSED ? stored : this.codec.decompress(stored, METADATA_SIZE);
    if (content.length === 0) throw new BadSquashfs(`a block of its ${what} table is empty`);
    return { content, next: position + 2 + length };
  }
}
