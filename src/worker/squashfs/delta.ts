import { type FileHandle, open } from 'node:fs/promises';
import type { CopiedRange } from '../part-plan.js';
import { BadSquashfs } from './bad-squashfs.js';
import type { FragmentPlace } from './data-writer.js';
import { DeltaPlan, type DeltaPlanOptions } from './delta-plan.js';
import type { PackableTree } from './disk-tree.js';
import { ImageWriter, type PackingResources } from './image-writer.js';
import { inOrder } from './in-order.js';
import { type FileInode, type StoredContent, storedLength, tailLength } from './inode.js';
import type { LiveData, LiveFragment } from './live-data.js';
import { type Overlay, readMergedTree } from './merged-tree.js';
import type { ImageReport } from './pack-report.js';
import type { SquashfsImage } from './squashfs-image.js';
import type { NewContent, TreeFile } from './tree.js';
import { TwinBlocks } from './twin-blocks.js';

export interface DeltaOptions extends DeltaPlanOptions, PackingResources {
  /** Path of the new image; it must not exist, or be empty. Where the work ends early, what is written of it stays. */
  output: string;
}

/** Blocks of fragments that are unpacked ahead. */
const UNPACKED_AHEAD = 8;

/**
 * Packs what an overlay shows into a new SquashFS image of the compression and block size of its lower image, at the cost of what changed:
 * data blocks of unchanged files are copied as they are, the rest is compressed anew, and all metadata is written anew. No block of a file
 * that is gone is copied, and blocks of fragments that hold anything of one are packed again without it.
 *
 * The output is written strictly forward, and the superblock, which makes it an image, last. The same input gives the same bytes.
 * @throws BadSquashfs and NotSquashfs for the source, CodecMissing, SquashfsLimit, FileChanged; the reason of the signal
 */
export async function packDelta({ overlay, ...options }: DeltaOptions & { overlay: Overlay }): Promise<ImageReport> {
  return packTree(options, (image) => readMergedTree(image, overlay));
}

/** As `packDelta`, for any tree whose old contents are those of the source. */
export async function packTree(
  options: DeltaOptions,
  readTree: (image: SquashfsImage) => PackableTree,
): Promise<ImageReport> {
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
  { output, ...resources }: Pick<DeltaOptions, 'output' | keyof PackingResources>,
): Promise<ImageReport> {
  const file = await open(output, 'w');
  try {
    return await new DeltaPacker(plan, file, resources).run();
  } finally {
    await file.close();
  }
}

class DeltaPacker {
  private readonly writer: ImageWriter;
  private readonly blockSize: number;
  /** Where contents of the source stand in the new image. */
  private readonly moved: CopiedRange[];
  private readonly movedFragments = new Map<number, number>();
  /** Ends of files of blocks of fragments that were packed again, by `tailKey`. */
  private readonly movedTails = new Map<string, FragmentPlace>();
  private readonly image: SquashfsImage;

  constructor(
    private readonly plan: DeltaPlan,
    output: FileHandle,
    { processors, memory }: PackingResources,
  ) {
    const { image, signal } = plan;
    const { superblock, compressorOptions, codec } = image;
    this.image = image;
    this.moved = plan.copied;
    this.blockSize = superblock.blockSize;
    const format = { blockSize: this.blockSize, flags: superblock.flags, compressorOptions };
    this.writer = new ImageWriter({
      output,
      codec,
      format,
      processors,
      memory,
      signal,
      twinBlocks: (content) => this.twinBlocks(content),
    });
  }

  async run(): Promise<ImageReport> {
    const { stopwatch, live, source: path } = this.plan;
    await this.writer.begin();
    const source = await open(path, 'r');
    // What is new is compressed while what stays is copied in front of it.
    const copying = stopwatch.time('copy', () => this.copy(source, live));
    // It may fail before anybody waits for it.
    copying.catch(() => {});
    try {
      const fragments = await stopwatch.time('compress', () => this.compress(live));
      return await stopwatch.time('metadata', () => this.finish(fragments));
    } finally {
      await copying.catch(() => {});
      await source.close();
    }
  }

  /** Copies all that stays, in the order of the source. */
  private copy(source: FileHandle, { copied, wholeFragments }: LiveData): Promise<void> {
    const { data } = this.writer;
    for (const index of wholeFragments) {
      const { start, word } = this.image.fragment(index);
      this.movedFragments.set(index, data.addCopiedFragment(this.moveTo(start), word));
    }
    return data.copy(source, copied, this.plan.signal);
  }

  /** Compresses all that is new. Returns the fragment table. */
  private async compress({ brokenFragments }: LiveData): Promise<Buffer> {
    const unpack = ({ index }: LiveFragment) => {
      const { start, word } = this.image.fragment(index);
      return this.image.block(start, word);
    };
    for await (const [fragment, content] of inOrder(brokenFragments, UNPACKED_AHEAD, unpack))
      await this.repack(fragment, content);
    await this.writer.storeAll(this.plan.newContents);
    return this.writer.data.finish();
  }

  /** Packs again what is needed of a block of fragments. */
  private async repack({ index, tails }: LiveFragment, content: Buffer): Promise<void> {
    this.plan.signal.throwIfAborted();
    if (tails.some(({ end }) => end > content.length))
      throw new BadSquashfs('a file ends behind the end of its fragment');
    for (const tail of tails) {
      const key = tailKey(index, tail.start, tail.end - tail.start);
      if (!this.movedTails.has(key))
        this.movedTails.set(key, await this.writer.data.tail(content.subarray(tail.start, tail.end)));
    }
  }

  private async finish(fragments: Buffer): Promise<ImageReport> {
    const { tree, stopwatch } = this.plan;
    const sizes = await this.writer.finish(tree.root, (file) => this.contentOf(file), fragments);
    return {
      ...sizes,
      reusedBytes: this.moved.reduce((sum, { length }) => sum + length, this.writer.data.bytesReused),
      newBytes: this.writer.data.bytesCompressed,
      newFiles: this.writer.newFiles,
      droppedXattrs: tree.droppedXattrs,
      seconds: stopwatch.seconds,
    };
  }

  /** Blocks of the file that a content most likely comes from. */
  private twinBlocks({ twins }: NewContent): TwinBlocks | null {
    const twin = twins.find(({ blocks }) => blocks.length > 0);
    return twin ? new TwinBlocks(this.image, twin) : null;
  }

  private contentOf({ content }: TreeFile): StoredContent {
    if (content.from === 'file') return content.stored!;
    const { sparse } = content;
    const inode = this.image.file(content.inode);
    const { size, blocks } = inode;
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
