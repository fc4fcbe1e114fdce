import type { Codec } from './codec.js';
import { METADATA_SIZE, METADATA_UNCOMPRESSED } from './metadata-reader.js';
import type { MetadataReference } from './superblock.js';

/** More than one call writes at once: names have up to 255 bytes. */
const OVERRUN = 256;

/** Writes a table of metadata into memory: blocks of 8 KiB, each compressed by itself (squashfs.rst, section 3). */
export class MetadataWriter {
  private readonly blocks: Buffer[] = [];
  /** Where blocks begin, the one that is being filled included. */
  private readonly starts = [0];
  /** The block that is being filled, and room for what runs over its end. */
  private readonly current = Buffer.alloc(METADATA_SIZE + OVERRUN);
  private filled = 0;

  constructor(private readonly codec: Codec) {}

  /** Where the next byte goes. */
  get position(): MetadataReference {
    return { block: this.starts.at(-1)!, offset: this.filled };
  }

  /** Bytes that were written, before compression. */
  get length(): number {
    return (this.starts.length - 1) * METADATA_SIZE + this.filled;
  }

  /** Start of the block that holds the byte with this number, before compression. */
  blockOf(byte: number): number {
    return this.starts[Math.floor(byte / METADATA_SIZE)]!;
  }

  u16(value: number): this {
    this.current.writeUInt16LE(value, this.filled);
    return this.advance(2);
  }

  u32(value: number): this {
    this.current.writeUInt32LE(value, this.filled);
    return this.advance(4);
  }

  u64(value: number): this {
    this.current.writeBigUInt64LE(BigInt(value), this.filled);
    return this.advance(8);
  }

  /** @param text a byte per character; at most `OVERRUN` of them */
  latin1(text: string): this {
    return this.advance(this.current.write(text, this.filled, 'latin1'));
  }

  write(content: Buffer): this {
    for (let done = 0; done < content.length;) {
      const taken = content.copy(this.current, this.filled, done, done + METADATA_SIZE - this.filled);
      done += taken;
      this.advance(taken);
    }
    return this;
  }

  /** The whole table. Nothing can be written afterwards. */
  finish(): Buffer {
    if (this.filled > 0) this.flush();
    return Buffer.concat(this.blocks);
  }

  private advance(bytes: number): this {
    this.filled += bytes;
    if (this.filled >= METADATA_SIZE) this.flush();
    return this;
  }

  private flush(): void {
    const length = Math.min(this.filled, METADATA_SIZE);
    const block = encodeMetadataBlock(this.codec, this.current.subarray(0, length));
    this.blocks.push(block);
    this.starts.push(this.starts.at(-1)! + block.length);
    this.current.copyWithin(0, length, this.filled);
    this.filled -= length;
  }
}

function encodeMetadataBlock(codec: Codec, content: Buffer): Buffer {
  const compressed = codec.compress(content);
  const header = Buffer.alloc(2);
  header.writeUInt16LE(compressed ? compressed.length : content.length | METADATA_UNCOMPRESSED);
  return Buffer.concat([header, compressed ?? content]);
}

/**
 * A table of entries of one size, as bytes: blocks of metadata, and behind them an index of their positions.
 * @param at where in the image the bytes will stand
 */
export function encodeIndexedTable(codec: Codec, content: Buffer, at: number): { bytes: Buffer; index: number } {
  const blocks: Buffer[] = [];
  const positions: bigint[] = [];
  let position = at;
  for (let start = 0; start < content.length; start += METADATA_SIZE) {
    const block = encodeMetadataBlock(codec, content.subarray(start, start + METADATA_SIZE));
    blocks.push(block);
    positions.push(BigInt(position));
    position += block.length;
  }
  const index = Buffer.from(BigUint64Array.from(positions).buffer);
  return { bytes: Buffer.concat([...blocks, index]), index: position };
}
