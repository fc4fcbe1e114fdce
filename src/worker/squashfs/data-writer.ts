import type { FileHandle } from 'node:fs/promises';
import type { Codec } from './codec.js';
import { blockWord, type StoredContent } from './inode.js';
import type { Interval } from './live-data.js';

/** Where the end of a file stands. */
export type FragmentPlace = NonNullable<StoredContent['fragment']>;

/** Contents that are on their way through the compressor at once, for each thread. */
const DEPTH = 2;
/** Bytes that are copied at once. */
const COPY_SIZE = 4 * 1024 * 1024;

/** A block on its way into the image. */
interface PendingBlock {
  content: Buffer;
  compressed: Promise<Buffer | null>;
  place: (start: number, word: number) => void;
}

export interface DataWriterOptions {
  output: FileHandle;
  codec: Codec;
  blockSize: number;
  /** Where the first byte goes. */
  position: number;
  /** Threads that compress. */
  threads: number;
}

/**
 * Writes the data area of an image, strictly forward: stretches of another image as they are, then blocks that are compressed on several
 * threads and written in the order in which they came. The same calls give the same bytes.
 */
export class DataWriter {
  /** The fragment table, 16 bytes an entry. */
  private readonly fragments: Buffer[] = [];
  private readonly pending: PendingBlock[] = [];
  private tails: Buffer[] = [];
  private tailBytes = 0;
  private at: number;
  private newBytes = 0;

  constructor(private readonly options: DataWriterOptions) {
    this.at = options.position;
  }

  /** Where the next byte goes, once all that was given is written. */
  get position(): number {
    return this.at;
  }

  /** Bytes of blocks that were compressed for this image. */
  get bytesCompressed(): number {
    return this.newBytes;
  }

  /** Copies a stretch of another image. Only before the first block. */
  async copy(source: FileHandle, { start, end }: Interval): Promise<void> {
    let next = readRange(source, start, end);
    for (let position = start; position < end; position += COPY_SIZE) {
      const content = await next;
      next = readRange(source, position + COPY_SIZE, end);
      // It may fail before anybody waits for it.
      next.catch(() => {});
      await this.write(content);
    }
  }

  /** Enters a block of fragments that was copied. Returns its number. */
  addCopiedFragment(start: number, word: number): number {
    this.fragments.push(fragmentEntry(start, word));
    return this.fragments.length - 1;
  }

  /** Adds a data block; `place` learns where it stands when it is written. The content must not be changed afterwards. */
  async block(content: Buffer, place: PendingBlock['place']): Promise<void> {
    const { codec, threads } = this.options;
    while (this.pending.length >= threads * DEPTH) await this.writeNext();
    const compressed = codec.compressInBackground(content);
    compressed.catch(() => {});
    this.pending.push({ content, compressed, place });
  }

  /** Adds the end of a file, of less than a block, to a block of fragments. */
  async tail(content: Buffer): Promise<FragmentPlace> {
    if (this.tailBytes + content.length > this.options.blockSize) await this.closeFragment();
    const place = { index: this.fragments.length, offset: this.tailBytes };
    this.tails.push(Buffer.from(content));
    this.tailBytes += content.length;
    return place;
  }

  /** Writes what is pending. Returns the fragment table. */
  async finish(): Promise<Buffer> {
    if (this.tailBytes > 0) await this.closeFragment();
    while (this.pending.length > 0) await this.writeNext();
    return Buffer.concat(this.fragments);
  }

  private async closeFragment(): Promise<void> {
    const entry = Buffer.alloc(0);
    const index = this.fragments.push(entry) - 1;
    const content = Buffer.concat(this.tails);
    this.tails = [];
    this.tailBytes = 0;
    await this.block(content, (start, word) => {
      this.fragments[index] = fragmentEntry(start, word);
    });
  }

  private async writeNext(): Promise<void> {
    const { content, compressed, place } = this.pending.shift()!;
    const packed = await compressed;
    const bytes = packed ?? content;
    place(this.at, blockWord(bytes.length, packed !== null));
    this.newBytes += bytes.length;
    await this.write(bytes);
  }

  private async write(content: Buffer): Promise<void> {
    await writeFully(this.options.output, content, this.at);
    this.at += content.length;
  }
}

/** Writes all of a content; a disk that fills up may take the first part of it only. */
export async function writeFully(output: FileHandle, content: Buffer, position: number): Promise<void> {
  for (let done = 0; done < content.length;) {
    const { bytesWritten } = await output.write(content, done, content.length - done, position + done);
    done += bytesWritten;
  }
}

async function readRange(source: FileHandle, start: number, end: number): Promise<Buffer> {
  const content = Buffer.allocUnsafe(Math.max(Math.min(COPY_SIZE, end - start), 0));
  for (let done = 0; done < content.length;) {
    const { bytesRead } = await source.read(content, done, content.length - done, start + done);
    if (bytesRead === 0) throw new Error('the source image became shorter while it was read');
    done += bytesRead;
  }
  return content;
}

function fragmentEntry(start: number, word: number): Buffer {
  const entry = Buffer.alloc(16);
  entry.writeBigUInt64LE(BigInt(start), 0);
  entry.writeUInt32LE(word, 8);
  return entry;
}
