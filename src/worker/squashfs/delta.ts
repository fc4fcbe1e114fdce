import { type FileHandle, open } from 'node:fs/promises';
import { availableParallelism } from 'node:os';
import { BadSquashfs } from './bad-squashfs.js';
import { ContentMatcher, hashOf } from './content-match.js';
import { type CopiedRange, DataWriter, type FragmentPlace, writeFully } from './data-writer.js';
import { fileBlocks } from './file-blocks.js';
import { type FileInode, type StoredContent, storedLength, tailLength } from './inode.js';
import { findLiveData, type LiveData, type LiveFragment } from './live-data.js';
import { type MergedTree, type Overlay, readMergedTree } from './merged-tree.js';
import { SquashfsImage } from './squashfs-image.js';
import { encodeSuperblock, FLAG, SUPERBLOCK_SIZE } from './superblock.js';
import { leaves, type NewContent, type TreeDirectory, type TreeFile, type TreeNode } from './tree.js';
import { type EncodedTables, encodeTables } from './tree-writer.js';

export interface DeltaOptions {
  /** Path of the image below the overlay. */
  source: string;
  overlay: Overlay;
  /** Path of the new image; it must not exist, or be empty. */
  output: string;
  /** With which new blocks are compressed; null for the default of the compression. */
  level: number | null;
  /** Threads that compress; 0 for all. */
  processors: number;
  /** Ends the work; the output stays as it is. */
  signal: AbortSignal;
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
  /** Where the new image has the bytes of the source, in its own order. */
  copied: CopiedRange[];
  /** What took how long, in seconds. */
  seconds: Record<Stage, number>;
}

export type Stage = 'tables' | 'compare' | 'copy' | 'compress' | 'metadata';

/** The size of an image is a multiple of this, as mksquashfs has it: loop devices have sectors of up to 4 KiB. */
const PADDING = 4096;
/** Files of the source with the same size that are compared with a new one. */
const TWIN_LIMIT = 8;
/** Files that are compared or hashed at once. */
const COMPARED_AT_ONCE = 4;

/**
 * Packs what an overlay shows into a new SquashFS image of the compression and block size of its lower image, at the cost of what changed:
 * data blocks of unchanged files are copied as they are, the rest is compressed anew, and all metadata is written anew. No block of a file
 * that is gone is copied, and blocks of fragments that hold anything of one are packed again without it.
 *
 * The output is written strictly forward, and the superblock, which makes it an image, last. The same input gives the same bytes.
 * @throws BadSquashfs and NotSquashfs for the source, CodecMissing, SquashfsLimit, FileChanged; the reason of the signal
 */
export async function packDelta(options: DeltaOptions): Promise<DeltaReport> {
  return packTree(options, (image) => readMergedTree(image, options.overlay));
}

/** As `packDelta`, for any tree whose old contents are those of the source. */
export async function packTree(
  options: Omit<DeltaOptions, 'overlay'>,
  readTree: (image: SquashfsImage) => MergedTree,
): Promise<DeltaReport> {
  const image = SquashfsImage.open(options.source, options.level);
  try {
    const output = await open(options.output, 'w');
    try {
      return await new DeltaPacker(image, output, options).run(readTree);
    } finally {
      await output.close();
    }
  } finally {
    image.close();
  }
}

class DeltaPacker {
  private readonly writer: DataWriter;
  private readonly blockSize: number;
  /** Where contents of the source stand in the new image. */
  private readonly moved: CopiedRange[] = [];
  private readonly movedFragments = new Map<number, number>();
  /** Ends of files of blocks of fragments that were packed again, by `tailKey`. */
  private readonly movedTails = new Map<string, FragmentPlace>();
  private readonly stored = new Map<NewContent, StoredContent>();
  private readonly stopwatch = new Stopwatch();
  private newFiles = 0;

  constructor(
    private readonly image: SquashfsImage,
    private readonly output: FileHandle,
    private readonly options: Omit<DeltaOptions, 'overlay'>,
  ) {
    this.blockSize = image.superblock.blockSize;
    this.writer = new DataWriter({
      output,
      codec: image.codec,
      blockSize: this.blockSize,
      position: image.dataStart,
      threads: options.processors || availableParallelism(),
    });
  }

  async run(readTree: (image: SquashfsImage) => MergedTree): Promise<DeltaReport> {
    const tree = this.stopwatch.time('tables', () => readTree(this.image));
    const files = [...leaves(tree.root)].filter((node) => node.kind === 'file');
    const originals = await this.stopwatch.timeAsync('compare', () => this.reuse(files));
    const live = findLiveData(this.image, oldInodes(files));
    await this.stopwatch.timeAsync('copy', () => this.copy(live));
    await this.stopwatch.timeAsync('compress', () => this.compress(live, files, originals));
    const fragments = await this.stopwatch.timeAsync('compress', () => this.writer.finish());
    return this.stopwatch.timeAsync('metadata', () => this.finish(tree, fragments));
  }

  /**
   * Finds files that are new by name only. Contents that the source has become old; of those that are equal to each other all but the first
   * are returned with that first one.
   */
  private async reuse(files: TreeFile[]): Promise<Map<NewContent, NewContent>> {
    const changed = files.filter(isNew);
    addTwinsBySize(this.image, changed.map(({ content }) => content));
    const matcher = new ContentMatcher(this.image);
    await this.forEach(changed, async (file) => {
      const twin = await matcher.findTwin(file.content);
      if (twin) (file as TreeFile).content = { from: 'source', inode: twin };
    });
    return this.findEqual(files.filter(isNew).map(({ content }) => content));
  }

  private async findEqual(contents: NewContent[]): Promise<Map<NewContent, NewContent>> {
    const bySize = groupBySize(contents);
    const candidates = contents.filter(({ size }) => size > 0 && bySize.get(size)!.length > 1);
    const hashes = new Map<NewContent, string>();
    await this.forEach(candidates, async (content) => void hashes.set(content, await hashOf(content, this.blockSize)));
    const first = new Map<string, NewContent>();
    const originals = new Map<NewContent, NewContent>();
    for (const content of candidates) {
      const key = `${content.size} ${hashes.get(content)}`;
      const original = first.get(key);
      if (original) originals.set(content, original);
      else first.set(key, content);
    }
    return originals;
  }

  private async forEach<Item>(items: readonly Item[], action: (item: Item) => Promise<void>): Promise<void> {
    const queue = items.values();
    const work = async () => {
      for (const item of queue) {
        this.options.signal.throwIfAborted();
        await action(item);
      }
    };
    await Promise.all(Array.from({ length: COMPARED_AT_ONCE }, work));
  }

  /** Copies all that stays, in the order of the source. */
  private async copy({ copied, wholeFragments }: LiveData): Promise<void> {
    await this.writeCompressorOptions();
    const source = await open(this.options.source, 'r');
    try {
      for (const interval of copied) {
        this.options.signal.throwIfAborted();
        this.moved.push(await this.writer.copy(source, interval));
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

  private async compress(
    live: LiveData,
    files: TreeFile[],
    originals: ReadonlyMap<NewContent, NewContent>,
  ): Promise<void> {
    for (const fragment of live.brokenFragments) await this.repack(fragment);
    const contents = files.filter(isNew).map(({ content }) => content);
    for (const content of contents) if (!originals.has(content)) this.stored.set(content, await this.store(content));
    for (const [content, original] of originals) this.stored.set(content, this.stored.get(original)!);
  }

  /** Packs again what is needed of a block of fragments. */
  private async repack({ index, tails }: LiveFragment): Promise<void> {
    this.options.signal.throwIfAborted();
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
    const hasTail = size % this.blockSize !== 0 && this.endsInFragment(size);
    const blocks = Buffer.alloc(4 * (hasTail ? Math.floor(size / this.blockSize) : Math.ceil(size / this.blockSize)));
    const stored: StoredContent = { size, start: 0, blocks, fragment: null, sparse: 0 };
    let number = 0;
    let holes = 0;
    for await (const block of fileBlocks(path, size, this.blockSize)) {
      this.options.signal.throwIfAborted();
      if (number * 4 === blocks.length) stored.fragment = await this.writer.tail(block);
      else if (isZero(block)) holes += block.length;
      else await this.storeBlock(stored, number, block);
      number++;
    }
    // As mksquashfs has it: what was written out as zeros counts as written.
    if (allocated < size) stored.sparse = holes;
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

  private async finish({ root, droppedXattrs }: MergedTree, fragments: Buffer): Promise<DeltaReport> {
    const { position } = this.writer;
    const tables = encodeTables(this.image.codec, root, (file) => this.contentOf(file), fragments, position);
    this.options.signal.throwIfAborted();
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
      copied: this.moved,
      seconds: this.stopwatch.seconds,
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

function isNew(file: TreeFile): file is TreeFile & { content: NewContent } {
  return file.content.from === 'file';
}

function oldInodes(files: TreeFile[]): FileInode[] {
  return files.flatMap(({ content }) => (content.from === 'source' ? [content.inode] : []));
}

/** Adds files of the source that have the same size, whatever their names. */
function addTwinsBySize(image: SquashfsImage, contents: NewContent[]): void {
  const bySize = groupBySize(contents);
  bySize.delete(0);
  if (bySize.size === 0) return;
  for (const inode of image.inodes()) {
    if (inode.kind !== 'file') continue;
    for (const { twins } of bySize.get(inode.size) ?? [])
      if (twins.length < TWIN_LIMIT && !twins.some(({ number }) => number === inode.number)) twins.push(inode);
  }
}

function groupBySize(contents: NewContent[]): Map<number, NewContent[]> {
  const groups = new Map<number, NewContent[]>();
  for (const content of contents) {
    const group = groups.get(content.size);
    if (group) group.push(content);
    else groups.set(content.size, [content]);
  }
  return groups;
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

/** Adds up how long stages take. */
class Stopwatch {
  readonly seconds: Record<Stage, number> = { tables: 0, compare: 0, copy: 0, compress: 0, metadata: 0 };

  time<Result>(stage: Stage, action: () => Result): Result {
    const start = performance.now();
    const result = action();
    this.seconds[stage] += (performance.now() - start) / 1000;
    return result;
  }

  async timeAsync<Result>(stage: Stage, action: () => Promise<Result>): Promise<Result> {
    const start = performance.now();
    const result = await action();
    this.seconds[stage] += (performance.now() - start) / 1000;
    return result;
  }
}
