import { createHash } from 'node:crypto';
import { fileBlocks } from './file-blocks.js';
import { blockLength, type FileInode, tailLength } from './inode.js';
import type { SquashfsImage } from './squashfs-image.js';
import type { NewContent } from './tree.js';

/** Blocks of fragments that are kept unpacked: files that are compared one after the other tend to end in the same. */
const FRAGMENT_CACHE = 16;

/** Tells whether files have the contents that an image has. */
export class ContentMatcher {
  private readonly fragments = new Map<number, Promise<Buffer>>();

  constructor(private readonly image: SquashfsImage) {}

  /**
   * The first of a content's twins that is equal to it, byte for byte; null for none.
   * @throws BadSquashfs, FileChanged
   */
  async findTwin(content: NewContent): Promise<FileInode | null> {
    for (const twin of content.twins) if (twin.size === content.size && (await this.equals(content, twin))) return twin;
    return null;
  }

  private async equals({ path, size }: NewContent, twin: FileInode): Promise<boolean> {
    const { blockSize } = this.image.superblock;
    let position = twin.start;
    let index = 0;
    for await (const block of fileBlocks(path, size, blockSize)) {
      const isTail = index * 4 >= twin.blocks.length;
      const word = isTail ? 0 : twin.blocks.readUInt32LE(index * 4);
      const old = isTail ? await this.tail(twin) : await this.block(position, word, block.length);
      if (!old.equals(block)) return false;
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
    const known = this.fragments.get(index);
    if (known) return known;
    const { start, word } = this.image.fragment(index);
    const content = this.image.block(start, word);
    this.fragments.set(index, content);
    if (this.fragments.size > FRAGMENT_CACHE) this.fragments.delete(this.fragments.keys().next().value!);
    return content;
  }
}

/** The SHA-256 of a file, hex. */
export async function hashOf({ path, size }: NewContent, blockSize: number): Promise<string> {
  const hash = createHash('sha256');
  for await (const block of fileBlocks(path, size, blockSize)) hash.update(block);
  return hash.digest('hex');
}
