import { hash } from 'node:crypto';
import { unlessDamaged } from './bad-squashfs.js';
import { fileBlocks, readShort } from './file-blocks.js';
import { inOrder } from './in-order.js';
import { blockLength, type FileInode, tailLength } from './inode.js';
import type { SquashfsImage } from './squashfs-image.js';
import { type NewContent, pathOf } from './tree.js';

/** Blocks of fragments that are unpacked at once. */
const UNPACKED_AHEAD = 8;
/** Files of more than a block that are compared at once. */
const COMPARED_AT_ONCE = 4;

/** A new content, and a file of the image that may be equal to it and stands in a block of fragments. */
interface Pair {
  content: NewContent;
  twin: FileInode;
}

/** Tells whether files have the contents that an image has. */
export class ContentMatcher {
  private readonly found = new Map<NewContent, FileInode>();

  constructor(
    private readonly image: SquashfsImage,
    /** Ends the work. */
    private readonly signal: AbortSignal,
  ) {}

  /**
   * For each content that a file of the image has too, that file. Damaged blocks of the image are equal to none.
   * @throws FileChanged, the reason of the signal
   */
  async findTwins(contents: readonly NewContent[]): Promise<ReadonlyMap<NewContent, FileInode>> {
    await this.compareFragments(contents.filter((content) => this.isShort(content)));
    const rest = contents.filter((content) => !this.found.has(content));
    for await (const [content, twin] of inOrder(rest, COMPARED_AT_ONCE, (item) => this.findTwin(item))) {
      this.signal.throwIfAborted();
      if (twin) this.found.set(content, twin);
    }
    return this.found;
  }

  private isShort({ size }: NewContent): boolean {
    return size < this.image.superblock.blockSize;
  }

  /** Compares short contents block of fragments by block of fragments, since each is unpacked for many. */
  private async compareFragments(contents: readonly NewContent[]): Promise<void> {
    const pairs = new Map<number, Pair[]>();
    for (const content of contents) {
      for (const twin of content.twins.filter((candidate) => isInFragment(candidate, content))) {
        const { index } = twin.fragment!;
        if (pairs.get(index)?.push({ content, twin }) === undefined) pairs.set(index, [{ content, twin }]);
      }
    }
    const digests = new Map<NewContent, string>();
    const unpack = ([index]: [number, Pair[]]) => unlessDamaged(this.fragment(index));
    for await (const [[, group], block] of inOrder(pairs, UNPACKED_AHEAD, unpack)) {
      this.signal.throwIfAborted();
      if (block) for (const pair of group) this.compareShort(pair, block, digests);
    }
  }

  private compareShort({ content, twin }: Pair, block: Buffer, digests: Map<NewContent, string>): void {
    if (this.found.has(content)) return;
    const digest = digests.get(content) ?? hash('sha256', readShort(pathOf(content), content.size));
    digests.set(content, digest);
    const { offset } = twin.fragment!;
    if (hash('sha256', block.subarray(offset, offset + content.size)) === digest) this.found.set(content, twin);
  }

  private async findTwin(content: NewContent): Promise<FileInode | null> {
    const isCompared = (twin: FileInode) => this.isShort(content) && isInFragment(twin, content);
    for (const twin of content.twins)
      if (twin.size === content.size && !isCompared(twin) && (await this.equals(content, twin))) return twin;
    return null;
  }

  private async equals(content: NewContent, twin: FileInode): Promise<boolean> {
    const { blockSize } = this.image.superblock;
    let position = twin.start;
    let index = 0;
    for await (const block of fileBlocks(pathOf(content), content.size, blockSize)) {
      const isTail = index * 4 >= twin.blocks.length;
      const word = isTail ? 0 : twin.blocks.readUInt32LE(index * 4);
      const old = await unlessDamaged(isTail ? this.tail(twin) : this.block(position, word, block.length));
      if (!old?.equals(block)) return false;
      position += isTail ? 0 : blockLength(word);
      index++;
    }
    return true;
  }

  private async block(position: number, word: number, length: number): Promise<Buffer> {
    return word === 0 ? Buffer.alloc(length) : this.image.block(position, word);
  }

  private async tail(twin: FileInode): Promise<Buffer> {
    const { index, offset } = twin.fragment!;
    const content = await this.fragment(index);
    return content.subarray(offset, offset + tailLength(twin, this.image.superblock.blockSize));
  }

  private fragment(index: number): Promise<Buffer> {
    const { start, word } = this.image.fragment(index);
    return this.image.block(start, word);
  }
}

/** Whether all of a file of the image stands in a block of fragments, and has the size of a content. */
function isInFragment(twin: FileInode, { size }: NewContent): boolean {
  return twin.size === size && twin.fragment !== null && twin.blocks.length === 0;
}
