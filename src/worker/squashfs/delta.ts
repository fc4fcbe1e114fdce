import { type FileHandle, open } from 'node:fs/promises';
import { availableParallelism } from 'node:os';
import type { CopiedRange } from '../part-plan.js';
import { BadSquashfs } from './bad-squashfs.js';
import { DataWriter, type FragmentPlace, writeFully } from './data-writer.js';
import { DeltaPlan, type DeltaPlanOptions } from './delta-plan.js';
import { fileBlocks } from './file-blocks.js';
import { type FileInode, type StoredContent, storedLength, tailLength } from './inode.js';
import type { LiveData, LiveFragment } from './live-data.js';
import { type MergedTree, type Overlay, readMergedTree } from './merged-tree.js';
import type { SquashfsImage } from './squashfs-image.js';
import type { Stage } from './stopwatch.js';
import { encodeSuperblock, FLAG, SUPERBLOCK_SIZE } from './superblock.js';
import type { NewContent, TreeDirectory, TreeFile, TreeNode } from './tree.js';
import { type EncodedTables, encodeTables } from './tree-writer.js';

export interface DeltaOptions extends DeltaPlanOptions {
  /** Path of the new image; it must not exist, or be empty. Where the work ends early, what is written of it stays. */
  output: string;
  /** Threads that compress; 0 for all. */
  processors: number;
}

/** What a packing did. */
export interface DeltaReport {
  /** Bytes of the new image, without padding. */
  bytes: number;
  /** Bytes that were taken from the source as they were. */
  reusedBytes: number;
  /** Bytes of blocks that were compressed anew. */
  newBytes: number;
  /** Bytes of metadata. */
  metadataBytes: number;
  /** Files whose contents were compressed anew. */
  newFiles: number;
  /** See `MergedTree`. */
  droppedXattrs: number;
  /** What took how long, in seconds. */
  seconds: Record<Stage, number>;
}

/** The size of an image is a multiple of this, as mksquashfs has it: loop devices have sectors of up to 4 KiB. */
const PADDING = 4096;
/**
 * Packs what an overlay shows into a new SquashFS image of the compression and block size of its lower image, at the cost of what changed:
 * data blocks of unchanged files are copied as they are, the rest is compressed anew, and all metadata is written anew. No block of a file
 * that is gone is copied, and blocks of fragments that hold anything of one are packed again without it.
 *
 * The output is written strictly forward, and the superblock, which makes it an image, last. The same input gives the same bytes.
 * @throws BadSquashfs and NotSquashfs for the source, CodecMissing, SquashfsLimit, FileChanged; the reason of the signal
 */
export async function packDelta({ overlay, ...options }: DeltaOptions & { overlay: Overlay }): Promise<DeltaReport> {
  return packTree(options, (image) => readMergedTree(image, overlay));
}

/** As `packDelta`, for any tree whose old contents are those of the source. */
export async function packTree(
  options: DeltaOptions,
  readTree: (image: SquashfsImage) => MergedTree,
): Promise<DeltaReport> {
  const plan = await DeltaPlan.make(options, readTree);
  try {
    return await packPlan(plan, options);
  } finally {
    plan.close();
  }
}

/**
 * Does what was planned, as `packDelta`.
 * @throws BadSquashfs where a block of the source is damaged, SquashfsLimit, FileChanged; the reason of the plan's signal
 */
export async function packPlan(
  plan: DeltaPlan,
  { output, processors }: Pick<DeltaOptions, 'output' | 'processors'>,
): Promise<DeltaReport> {
  const file = await open(output, 'w');
  try {
    return await new DeltaPacker(plan, file, processors).run();
  } finally {
    await file.close();
  }
}

class DeltaPacker {
  private readonly writer: DataWriter;
  private readonly blockSize: number;
  /** Where contents of the source stand in the new image. */
  private readonly moved: CopiedRange[];
  private readonly movedFragments = new Map<number, number>();
  /** Ends of files of blocks of fragments that were packed again, by `tailKey`. */
  private readonly movedTails = new Map<string, FragmentPlace>();
  private readonly stored = new Map<NewContent, StoredContent>();
  private readonly image: SquashfsImage;
  private newFiles = 0;

  constructor(
    private readonly plan: DeltaPlan,
    private readonly output: FileHandle,
    processors: number,
  ) {
    const { image } = plan;
    this.image = image;
    this.moved = plan.copied;
    this.blockSize = image.superblock.blockSize;
    this.writer = new DataWriter({
      output,
      codec: image.codec,
      blockSize: this.blockSize,
      position: image.dataStart,
      threads: processors || availableParallelism(),
    });
  }

  async run(): Promise<DeltaReport> {
    const { stopwatch, live } = this.plan;
    await stopwatch.time('copy', () => this.copy(live));
    const fragments = await stopwatch.time('compress', () => this.compress(live));
    return stopwatch.time('metadata', () => this.finish(fragments));
  }

  /** Copies all that stays, in the order of the source. */
  private async copy({ copied, wholeFragments }: LiveData): Promise<void> {
    await this.writeCompressorOptions();
    const source = await open(this.plan.source, 'r');
    try {
      for (const interval of copied) {
        this.plan.signal.throwIfAborted();
        await this.writer.copy(source, interval);
      }
    } finally {
      await source.close();
    }
    for (const index of wholeFragments) {
      const { start, word } = this.image.fragment(index);
      this.movedFragments.set(index, this.writer.addCopiedFragment(this.moveTo(start), word));
    }
  }

  private async writeCompressorOptions(): Promise<void> {
    const METADATA_UNCOMPRESSED = 0x8000;
    const { compressorOptions } = this.image;
    const header = Buffer.alloc(2);
    header.writeUInt16LE(compressorOptions.length | METADATA_UNCOMPRESSED);
    // Until the superblock is written the file begins with zeros, which no one takes for an image.
    const start = [Buffer.alloc(SUPERBLOCK_SIZE), ...(compressorOptions.length ? [header, compressorOptions] : [])];
    await writeFully(this.output, Buffer.concat(start), 0);
  }

  /** Compresses all that is new. Returns the fragment table. */
  private async compress(live: LiveData): Promise<Buffer> {
    const { newContents, originals } = this.plan;
    for (const fragment of live.brokenFragments) await this.repack(fragment);
    for (const content of newContents) if (!originals.has(content)) this.stored.set(content, await this.store(content));
    for (const [content, original] of originals) this.stored.set(content, this.stored.get(original)!);
    return this.writer.finish();
  }

  /** Packs again what is needed of a block of fragments. */
  private async repack({ index, tails }: LiveFragment): Promise<void> {
    this.plan.signal.throwIfAborted();
    const { start, word } = this.image.fragment(index);
    const content = await this.image.block(start, word);
    if (tails.some(({ end }) => end > content.length))
      throw new BadSquashfs('a file ends behind the end of its fragment');
    for (const tail of tails) {
      const key = tailKey(index, tail.start, tail.end - tail.start);
      if (!this.movedTails.has(key))
        this.movedTails.set(key, await this.writer.tail(content.subarray(tail.start, tail.end)));
    }
  }

  /** Compresses a content that is in no image yet. */
  private async store({ path, size, allocated }: NewContent): Promise<StoredContent> {
    const last = size % this.blockSize !== 0 && this.endsInFragment(size) ? Math.floor(size / this.blockSize) : null;
    const blocks = Buffer.alloc(4 * Math.ceil(size / this.blockSize));
    const stored: StoredContent = { size, start: 0, blocks, fragment: null, sparse: 0 };
    let number = 0;
    let holes = 0;
    for await (const block of fileBlocks(path, size, this.blockSize)) {
      this.plan.signal.throwIfAborted();
      if (isZero(block)) holes += block.length;
      else if (number === last) stored.fragment = await this.writer.tail(block);
      else await this.storeBlock(stored, number, block);
      number++;
    }
    if (stored.fragment) stored.blocks = blocks.subarray(0, -4);
    // As mksquashfs has it: what was written out as zeros counts as written.
    // A file that is nothing but holes is told to have a byte.
    if (allocated < size) stored.sparse = Math.min(holes, size - 1);
    this.newFiles++;
    return stored;
  }

  private async storeBlock(stored: StoredContent, number: number, block: Buffer): Promise<void> {
    await this.writer.block(block, (start, word) => {
      if (stored.start === 0) stored.start = start;
      stored.blocks.writeUInt32LE(word, number * 4);
    });
  }

  /** As the source was packed: files of less than a block do, ends of larger files where its flags say so. */
  private endsInFragment(size: number): boolean {
    const { flags } = this.image.superblock;
    if (flags & FLAG.noFragments) return false;
    return size < this.blockSize || (flags & FLAG.alwaysFragments) !== 0;
  }

  private async finish(fragments: Buffer): Promise<DeltaReport> {
    const { root, droppedXattrs } = this.plan.tree;
    const { position } = this.writer;
    const tables = encodeTables(this.image.codec, root, (file) => this.contentOf(file), fragments, position);
    this.plan.signal.throwIfAborted();
    const bytes = position + tables.bytes.length;
    await writeFully(this.output, Buffer.concat([tables.bytes, Buffer.alloc(-bytes & (PADDING - 1))]), position);
    await writeFully(this.output, this.superblock(tables, fragments, bytes, newest(root)), 0);
    return {
      bytes,
      reusedBytes: this.moved.reduce((sum, { length }) => sum + length, 0),
      newBytes: this.writer.bytesCompressed,
      metadataBytes: tables.bytes.length,
      newFiles: this.newFiles,
      droppedXattrs,
      seconds: this.plan.stopwatch.seconds,
    };
  }

  private superblock(tables: EncodedTables, fragments: Buffer, size: number, time: number): Buffer {
    const { compression, blockSize, flags } = this.image.superblock;
    const kept = flags & (FLAG.noFragments | FLAG.alwaysFragments | FLAG.duplicates | FLAG.compressorOptions);
    const xattrs = tables.xattrTable === null ? FLAG.noXattrs : 0;
    const facts = { compression, blockSize, size, time, fragments: fragments.length / 16 };
    return encodeSuperblock({ ...tables, ...facts, flags: kept | FLAG.exportable | xattrs });
  }

  private contentOf({ content }: TreeFile): StoredContent {
    if (content.from === 'file') return this.stored.get(content)!;
    const { inode } = content;
    const { size, blocks, sparse } = inode;
    const start = storedLength(inode) ? this.moveTo(inode.start) : 0;
    return { size, start, blocks, sparse, fragment: inode.fragment && this.movedFragment(inode) };
  }

  private movedFragment(inode: FileInode): FragmentPlace {
    const { index, offset } = inode.fragment!;
    const copied = this.movedFragments.get(index);
    if (copied !== undefined) return { index: copied, offset };
    return this.movedTails.get(tailKey(index, offset, tailLength(inode, this.blockSize)))!;
  }

  /** Where something that was copied stands now. */
  private moveTo(position: number): number {
    let [low, high] = [0, this.moved.length - 1];
    while (low < high) {
      const middle = Math.ceil((low + high) / 2);
      if (this.moved[middle]!.source <= position) low = middle;
      else high = middle - 1;
    }
    const range = this.moved[low]!;
    return range.start + (position - range.source);
  }
}

function tailKey(index: number, offset: number, length: number): string {
  return `${index} ${offset} ${length}`;
}

function isZero(block: Buffer): boolean {
  return block[0] === 0 && block.equals(ZEROS.subarray(0, block.length));
}

/** As long as the largest block. */
const ZEROS = Buffer.alloc(1024 * 1024);

/** The time of the newest thing in a tree. An image is made at a time that depends on nothing but its content. */
function newest(directory: TreeDirectory): number {
  const times = directory.entries.map(({ node }: { node: TreeNode }) =>
    node.kind === 'directory' ? newest(node) : node.mtime,
  );
  return times.reduce((latest, time) => Math.max(latest, time), directory.mtime);
}
