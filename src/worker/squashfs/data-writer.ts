import type { FileHandle } from 'node:fs/promises';
import { copyFileRange } from '../linux.js';
import type { Codec } from './codec.js';
import { blockWord, type StoredBlock, type StoredContent } from './inode.js';
import type { Interval } from './live-data.js';

/** Where the end of a file stands. */
export type FragmentPlace = NonNullable<StoredContent['fragment']>;

/** Contents that are on their way through the compressor at once, for each thread. */
const DEPTH = 4;
/** Most of them, however many threads there are: each takes a context of its compression, and koffi makes no more than 256 calls at once. */
const IN_FLIGHT = 96;
/** Bytes that the kernel is asked to copy at once: whoever ends the work waits for them. */
const COPY_SIZE = 64 * 1024 * 1024;
/** Bytes that are copied at once where the kernel cannot. */
const HAND_SIZE = 4 * 1024 * 1024;
/** Bytes that are written at once. */
const WRITE_SIZE = 1024 * 1024;

interface PackedBlock extends StoredBlock {
  /** It is another image's. */
  isReused: boolean;
}

/** Looks for a block where it is packed already; null where it is nowhere. */
type FindBlock = ((content: Buffer) => Promise<StoredBlock | null>) | null;

/** A block on its way into the image. */
interface PendingBlock {
  packed: Promise<PackedBlock>;
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
  /** Bytes that blocks on their way may take. */
  memory: number;
}

/**
 * Writes the data area of an image, strictly forward: stretches of another image as they are, then blocks that are compressed on several
 * threads and written in the order in which they came. The same calls give the same bytes.
 */
export class DataWriter {
  /** The fragment table, 16 bytes an entry. */
  private readonly fragments: Buffer[] = [];
  private readonly pending: PendingBlock[] = [];
  /** Most blocks that are pending. Each takes memory for itself and for what it is compressed to. */
  private readonly limit: number;
  /** The block of fragments that is being filled. */
  private fragment: Buffer;
  private filled = 0;
  private at: number;
  private newBytes = 0;
  private reusedBytes = 0;
  /** What is to be written next, and what is being written. */
  private queue: Buffer[] = [];
  private queued = 0;
  private writing: Promise<void> = Promise.resolve();

  constructor(private readonly options: DataWriterOptions) {
    const { position, threads, memory, blockSize } = options;
    this.at = position;
    this.limit = Math.max(Math.min(threads * DEPTH, IN_FLIGHT, Math.floor(memory / (2 * blockSize))), 1);
    this.fragment = Buffer.allocUnsafe(blockSize);
  }

  /** Where the next byte goes, once all that was given is written. */
  get position(): number {
    return this.at;
  }

  /** Bytes of blocks that were compressed for this image. */
  get bytesCompressed(): number {
    return this.newBytes;
  }

  /** Bytes of single blocks that were taken from another image, beside what was copied. */
  get bytesReused(): number {
    return this.reusedBytes;
  }

  /**
   * Copies stretches of another image, behind what was given before, while what is given next is compressed. Only before the first block.
   * Settles when it is done; the source stays open until then.
   */
  copy(source: FileHandle, stretches: readonly Interval[], signal: AbortSignal): Promise<void> {
    const { output } = this.options;
    for (const { start, end } of stretches) {
      const target = this.at;
      this.at += end - start;
      this.writing = this.writing.then(() => copyStretch(source, { start, end }, output, target, signal));
    }
    // It may fail before anybody waits for it.
    this.writing.catch(() => {});
    return this.writing;
  }

  /** Enters a block of fragments that was copied. Returns its number. */
  addCopiedFragment(start: number, word: number): number {
    this.fragments.push(fragmentEntry(start, word));
    return this.fragments.length - 1;
  }

  /**
   * Adds a data block; `place` learns where it stands when it is written. The content must not be changed afterwards.
   */
  async block(content: Buffer, place: PendingBlock['place'], find: FindBlock = null): Promise<void> {
    while (this.pending.length >= this.limit) await this.writeNext();
    const packed = this.pack(content, find);
    packed.catch(() => {});
    this.pending.push({ packed, place });
  }

  /** Adds the end of a file, of less than a block, to a block of fragments. */
  async tail(content: Buffer): Promise<FragmentPlace> {
    if (this.filled + content.length > this.options.blockSize) await this.closeFragment();
    const place = { index: this.fragments.length, offset: this.filled };
    this.filled += content.copy(this.fragment, this.filled);
    return place;
  }

  /** Writes what is pending. Returns the fragment table. */
  async finish(): Promise<Buffer> {
    if (this.filled > 0) await this.closeFragment();
    while (this.pending.length > 0) await this.writeNext();
    await this.flush();
    await this.writing;
    return Buffer.concat(this.fragments);
  }

  private async closeFragment(): Promise<void> {
    const index = this.fragments.push(EMPTY) - 1;
    const content = this.fragment.subarray(0, this.filled);
    this.fragment = Buffer.allocUnsafe(this.options.blockSize);
    this.filled = 0;
    await this.block(content, (start, word) => {
      this.fragments[index] = fragmentEntry(start, word);
    });
  }

  private async writeNext(): Promise<void> {
    const { packed, place } = this.pending.shift()!;
    const { stored, word, isReused } = await packed;
    place(this.at, word);
    if (isReused) this.reusedBytes += stored.length;
    else this.newBytes += stored.length;
    await this.write(stored);
  }

  private async pack(content: Buffer, find: FindBlock): Promise<PackedBlock> {
    const found = find && (await find(content));
    if (found) return { ...found, isReused: true };
    const compressed = await this.options.codec.compressInBackground(content);
    const stored = compressed ?? content;
    return { stored, word: blockWord(stored.length, compressed !== null), isReused: false };
  }

  /** Returns when there is room for more. */
  private async write(content: Buffer): Promise<void> {
    this.queue.push(content);
    this.queued += content.length;
    this.at += content.length;
    if (this.queued >= WRITE_SIZE) await this.flush();
  }

  /** Begins to write what is queued, when what was queued before is written. */
  private async flush(): Promise<void> {
    await this.writing;
    const content = this.queue;
    this.writing = writeAll(this.options.output, content, this.at - this.queued);
    // It may fail before anybody waits for it.
    this.writing.catch(() => {});
    this.queue = [];
    this.queued = 0;
  }
}

const EMPTY = Buffer.alloc(0);

/** Writes contents one behind the other. */
async function writeAll(output: FileHandle, contents: Buffer[], position: number): Promise<void> {
  if (contents.length === 0) return;
  const { bytesWritten } = await output.writev(contents, position);
  let at = 0;
  for (const content of contents) {
    const rest = content.subarray(Math.max(Math.min(bytesWritten - at, content.length), 0));
    at += content.length;
    if (rest.length > 0) await writeFully(output, rest, position + at - rest.length);
  }
}

/** Writes all of a content; a disk that fills up may take the first part of it only. */
export async function writeFully(output: FileHandle, content: Buffer, position: number): Promise<void> {
  for (let done = 0; done < content.length;) {
    const { bytesWritten } = await output.write(content, done, content.length - done, position + done);
    done += bytesWritten;
  }
}

async function copyStretch(
  source: FileHandle,
  { start, end }: Interval,
  output: FileHandle,
  target: number,
  signal: AbortSignal,
): Promise<void> {
  for (let at = start; at < end;) {
    signal.throwIfAborted();
    const [from, to] = [
      { fd: source.fd, position: at },
      { fd: output.fd, position: target + at - start },
    ];
    const length = Math.min(COPY_SIZE, end - at);
    // Where the kernel does not copy between these files, we do.
    at +=
      (await copyFileRange(from, to, length)) ||
      (await copyByHand(source, at, Math.min(length, HAND_SIZE), output, to.position));
  }
}

async function copyByHand(source: FileHandle, start: number, length: number, output: FileHandle, target: number) {
  const { buffer, bytesRead } = await source.read(Buffer.allocUnsafe(length), 0, length, start);
  if (bytesRead === 0) throw new Error('the source image became shorter while it was read');
  await writeFully(output, buffer.subarray(0, bytesRead), target);
  return bytesRead;
}

function fragmentEntry(start: number, word: number): Buffer {
  const entry = Buffer.alloc(16);
  entry.writeBigUInt64LE(BigInt(start), 0);
  entry.writeUInt32LE(word, 8);
  return entry;
}
