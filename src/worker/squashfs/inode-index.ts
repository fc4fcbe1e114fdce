import { BadSquashfs } from './bad-squashfs.js';
import { type Inode, tailLength } from './inode.js';
import type { Superblock } from './superblock.js';

/** What is asked of all inodes of an image at once, in a few bytes each. */
export class InodeIndex {
  /** Where in the inode table the inode with a number begins, plus one; 0 for none. */
  private readonly positions: Uint32Array;
  /** Bytes of the file with a number; -1 for anything else. */
  private readonly sizes: Float64Array;
  /** Bytes that files have of a block of fragments. */
  readonly fragmentEnds: Uint32Array;
  private readonly blockSize: number;

  constructor({ inodes, fragments, blockSize }: Superblock) {
    this.positions = new Uint32Array(inodes + 1);
    this.sizes = new Float64Array(inodes + 1).fill(-1);
    this.fragmentEnds = new Uint32Array(fragments);
    this.blockSize = blockSize;
  }

  /** @throws BadSquashfs */
  add(inode: Inode, position: number): void {
    this.positions[inode.number] = position + 1;
    if (inode.kind !== 'file') return;
    this.sizes[inode.number] = inode.size;
    if (!inode.fragment) return;
    const { index, offset } = inode.fragment;
    const known = this.fragmentEnds[index];
    if (known === undefined) throw new BadSquashfs('a file ends in a fragment that its fragment table lacks');
    this.fragmentEnds[index] = Math.max(known, offset + tailLength(inode, this.blockSize));
  }

  positionOf(number: number): number | null {
    const position = this.positions[number];
    return position ? position - 1 : null;
  }

  /** Numbers of files whose sizes are among these. */
  *filesOf(sizes: ReadonlyMap<number, unknown>): Generator<number, void, void> {
    for (let number = 1; number < this.sizes.length; number++) if (sizes.has(this.sizes[number]!)) yield number;
  }
}
