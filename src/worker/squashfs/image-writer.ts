import { createHash, hash } from 'node:crypto';
import type { FileHandle } from 'node:fs/promises';
import { availableParallelism } from 'node:os';
import type { Codec } from './codec.js';
import { dataStartOf } from './compressor-options.js';
import { DataWriter, writeFully } from './data-writer.js';
import { fileBlocks, readShort } from './file-blocks.js';
import type { StoredContent } from './inode.js';
import { encodeSuperblock, FLAG, SUPERBLOCK_SIZE } from './superblock.js';
import { type NewContent, pathOf, type TreeDirectory, type TreeFile, type TreeNode } from './tree.js';
import { type EncodedTables, encodeTables } from './tree-writer.js';
import type { TwinBlocks } from './twin-blocks.js';

/** How a new image is made. */
export interface ImageFormat {
  /** Bytes of a data block. */
  blockSize: number;
  /** Options of the compression, as the image gives them; empty for none. */
  compressorOptions: Buffer;
  /** `FLAG`, or-ed: where ends of files go. */
  flags: number;
}

/** What packing may take of the machine. */
export interface PackingResources {
  /** Threads that compress; 0 for all. */
  processors: number;
  /** Bytes that blocks on their way may take. */
  memory: number;
}

export interface ImageWriterOptions extends PackingResources {
  /** An empty file. */
  output: FileHandle;
  codec: Codec;
  format: ImageFormat;
  /** Blocks of the source that a content may have; null for none. */
  twinBlocks: (content: NewContent) => TwinBlocks | null;
  /** Ends the work. */
  signal: AbortSignal;
}

/** The size of an image is a multiple of this, as mksquashfs has it: loop devices have sectors of up to 4 KiB. */
const PADDING = 4096;
const METADATA_UNCOMPRESSED = 0x8000;

/**
 * Writes an image, strictly forward, but for the superblock, which makes it an image and is written last: contents of files, those that are
 * equal once, then all metadata. The same calls give the same bytes.
 */
export class ImageWriter {
  readonly data: DataWriter;
  /** Contents that were compressed. */
  newFiles = 0;
  /** Contents by their SHA-256, of sizes that several have. */
  private readonly known = new Map<string, StoredContent>();

  constructor(private readonly options: ImageWriterOptions) {
    const { output, codec, format, processors, memory } = options;
    this.data = new DataWriter({
      output,
      codec,
      blockSize: format.blockSize,
      position: dataStartOf(format.compressorOptions),
      threads: processors || availableParallelism(),
      memory,
    });
  }

  /** Writes what stands in front of the data. */
  async begin(): Promise<void> {
    const { compressorOptions } = this.options.format;
    const header = Buffer.alloc(2);
    header.writeUInt16LE(compressorOptions.length | METADATA_UNCOMPRESSED);
    // Until the superblock is written the file begins with zeros, which no one takes for an image.
    const start = [Buffer.alloc(SUPERBLOCK_SIZE), ...(compressorOptions.length ? [header, compressorOptions] : [])];
    await writeFully(this.options.output, Buffer.concat(start), 0);
  }

  /**
   * Compresses contents, each of those that are equal once. Where they stand they tell when the data writer has finished.
   * @throws FileChanged, the reason of the signal
   */
  async storeAll(contents: readonly NewContent[]): Promise<void> {
    const shared = sharedSizes(contents);
    for (const content of contents) {
      this.options.signal.throwIfAborted();
      content.stored = await (shared.has(content.size) ? this.storeOnce(content) : this.store(content));
    }
  }

  /**
   * Writes the metadata and the superblock.
   * @param fragments the fragment table, as the data writer gave it
   * @throws SquashfsLimit, the reason of the signal
   */
  async finish(
    root: TreeDirectory,
    contentOf: (file: TreeFile) => StoredContent,
    fragments: Buffer,
  ): Promise<{ bytes: number; metadataBytes: number }> {
    const { output, codec, signal } = this.options;
    const { position } = this.data;
    const tables = encodeTables(codec, root, contentOf, fragments, position);
    signal.throwIfAborted();
    const bytes = position + tables.bytes.length;
    await writeFully(output, tables.bytes, position);
    await writeFully(output, Buffer.alloc(-bytes & (PADDING - 1)), bytes);
    await writeFully(output, this.superblock(tables, fragments, bytes, newest(root)), 0);
    return { bytes, metadataBytes: tables.bytes.length };
  }

  /** Stores a content of a size that others have too. Of those that are equal, the first tells of holes, as mksquashfs has it. */
  private async storeOnce(content: NewContent): Promise<StoredContent> {
    const { size } = content;
    const { blockSize } = this.options.format;
    const whole = size <= blockSize ? readShort(pathOf(content), size) : null;
    const digest = whole ? hash('sha256', whole, 'binary') : await hashOf(content, blockSize);
    const known = this.known.get(digest);
    if (known) return known;
    const stored = await (whole ? this.storeBlocks(content, [whole]) : this.store(content));
    this.known.set(digest, stored);
    return stored;
  }

  private async store(content: NewContent): Promise<StoredContent> {
    return this.storeBlocks(content, fileBlocks(pathOf(content), content.size, this.options.format.blockSize));
  }

  private async storeBlocks(
    content: NewContent,
    source: AsyncIterable<Buffer> | Iterable<Buffer>,
  ): Promise<StoredContent> {
    const { size, allocated } = content;
    const { blockSize } = this.options.format;
    const last = size % blockSize !== 0 && this.endsInFragment(size) ? Math.floor(size / blockSize) : null;
    // Most files are nothing but an end.
    const blocks = last === 0 ? ONE_HOLE : Buffer.alloc(4 * Math.ceil(size / blockSize));
    const stored: StoredContent = { size, start: 0, blocks, fragment: null, sparse: 0 };
    const twin = last === 0 ? null : this.options.twinBlocks(content);
    let [number, holes] = [0, 0];
    for await (const block of source) {
      this.options.signal.throwIfAborted();
      if (isZero(block)) holes += block.length;
      else if (number === last) stored.fragment = await this.data.tail(block);
      else await this.storeBlock(stored, number, block, twin);
      number++;
    }
    if (stored.fragment) stored.blocks = last === 0 ? NO_BLOCKS : blocks.subarray(0, -4);
    // As mksquashfs has it: what was written out as zeros counts as written.
    // A file that is nothing but holes is told to have a byte.
    if (allocated < size) stored.sparse = Math.min(holes, size - 1);
    this.newFiles++;
    return stored;
  }

  private async storeBlock(
    stored: StoredContent,
    number: number,
    block: Buffer,
    twin: TwinBlocks | null,
  ): Promise<void> {
    const place = (start: number, word: number) => {
      if (stored.start === 0) stored.start = start;
      stored.blocks.writeUInt32LE(word, number * 4);
    };
    await this.data.block(block, place, twin && ((content) => twin.find(content, number)));
  }

  /** Files of less than a block do, ends of larger files where the flags say so. */
  private endsInFragment(size: number): boolean {
    const { flags, blockSize } = this.options.format;
    if (flags & FLAG.noFragments) return false;
    return size < blockSize || (flags & FLAG.alwaysFragments) !== 0;
  }

  private superblock(tables: EncodedTables, fragments: Buffer, size: number, time: number): Buffer {
    const { codec, format } = this.options;
    const { blockSize, compressorOptions } = format;
    const kept = format.flags & (FLAG.noFragments | FLAG.alwaysFragments | FLAG.duplicates);
    const options = compressorOptions.length ? FLAG.compressorOptions : 0;
    const xattrs = tables.xattrTable === null ? FLAG.noXattrs : 0;
    const facts = { compression: codec.compression, blockSize, size, time, fragments: fragments.length / 16 };
    return encodeSuperblock({ ...tables, ...facts, flags: kept | options | FLAG.exportable | xattrs });
  }
}

/** Sizes, but 0, that several contents have. */
function sharedSizes(contents: readonly NewContent[]): Set<number> {
  const [seen, shared] = [new Set<number>(), new Set<number>()];
  for (const { size } of contents) (seen.has(size) ? shared : seen).add(size);
  shared.delete(0);
  return shared;
}

/** The SHA-256 of a file. */
async function hashOf(content: NewContent, blockSize: number): Promise<string> {
  const digest = createHash('sha256');
  for await (const block of fileBlocks(pathOf(content), content.size, blockSize)) digest.update(block);
  return digest.digest('binary');
}

function isZero(block: Buffer): boolean {
  return block[0] === 0 && block.equals(ZEROS.subarray(0, block.length));
}

/** Sizes of the blocks of a file of less than a block: as a hole, and as an end in a block of fragments. */
const [ONE_HOLE, NO_BLOCKS] = [Buffer.alloc(4), Buffer.alloc(0)];
/** As long as the largest block. */
const ZEROS = Buffer.alloc(1024 * 1024);

/** The time of the newest thing in a tree. An image is made at a time that depends on nothing but its content. */
function newest(directory: TreeDirectory): number {
  const times = directory.entries.map(({ node }: { node: TreeNode }) =>
    node.kind === 'directory' ? newest(node) : node.mtime,
  );
  return times.reduce((latest, time) => Math.max(latest, time), directory.mtime);
}
