import { BadSquashfs } from './bad-squashfs.js';
import type { DirectoryInode, Inode } from './inode.js';
import type { DirectoryEntry, SquashfsImage } from './squashfs-image.js';
import { type Attributes, fileNode, type TreeDirectory, type TreeNode } from './tree.js';

/** Deepest nesting of directories. Walks go down by calls of functions, of which Node takes about twice as many. */
export const DEPTH_LIMIT = 1000;

/**
 * Whether an overlay above the image takes a file of it for its own sign of a removed one, and hides it: layers of containers that an image
 * holds are full of them (Linux, Documentation/filesystems/overlayfs.rst, "whiteouts and opaque directories").
 */
export function isWhiteout(inode: Inode): boolean {
  return inode.kind === 'character device' && inode.device === 0;
}

/** Decides on a file that has several names; the path begins with a slash. */
export type LinkedFile = (path: string, inode: Inode) => TreeNode;

/** Nodes of a tree as an image has them. */
export class ImageTree {
  /** Nodes with several links, by the numbers of their inodes. */
  private readonly linked = new Map<number, TreeNode>();
  /** Bytes of listings that may still be read; a directory that is in itself never ends. */
  private listingBudget: number;

  /** @param linkedFile null takes files with several names as the image has them */
  constructor(
    private readonly image: SquashfsImage,
    private readonly linkedFile: LinkedFile | null = null,
  ) {
    // A directory is read at most twice: as itself, and as what was in the place of a new one.
    this.listingBudget = 2 * image.listingBytes;
  }

  /** @throws BadSquashfs */
  root(): TreeDirectory {
    return this.directory('', this.image.root(), 0);
  }

  /**
   * The node of an inode, with all below it. Inodes with several links give the same node each time.
   * @param depth of its path
   * @throws BadSquashfs
   */
  node(path: string, inode: Inode, depth: number): TreeNode {
    if (inode.kind === 'directory') return this.directory(path, inode, depth);
    if (inode.links === 1) return this.leaf(inode);
    if (this.linkedFile && !isWhiteout(inode)) return this.linkedFile(path, inode);
    const node = this.linked.get(inode.number) ?? this.leaf(inode);
    this.linked.set(inode.number, node);
    return node;
  }

  /**
   * What is in a directory of the image.
   * @throws BadSquashfs, also where directories are in themselves
   */
  list(directory: DirectoryInode): DirectoryEntry[] {
    this.listingBudget -= directory.length;
    if (this.listingBudget < 0) throw new BadSquashfs('a directory is in itself, or in several others');
    return this.image.list(directory);
  }

  private directory(path: string, inode: DirectoryInode, depth: number): TreeDirectory {
    if (depth > DEPTH_LIMIT) throw new BadSquashfs(`its directories are more than ${DEPTH_LIMIT} deep`);
    const entries = this.list(inode).map(({ name, inode: reference }) => ({
      name,
      node: this.node(`${path}/${name}`, this.image.inode(reference), depth + 1),
    }));
    return { kind: 'directory', number: 0, ...this.attributes(inode), entries };
  }

  private leaf(inode: Exclude<Inode, DirectoryInode>): TreeNode {
    const attributes = this.attributes(inode);
    const { number } = inode;
    if (inode.kind === 'file') return fileNode(attributes, { from: 'source', inode: number, sparse: inode.sparse });
    if (inode.kind === 'symlink') return { kind: 'symlink', number: 0, ...attributes, target: inode.target };
    if ('device' in inode) return { kind: inode.kind, number: 0, ...attributes, device: inode.device };
    return { kind: inode.kind, number: 0, ...attributes };
  }

  private attributes(inode: Inode): Attributes {
    const { mode, uid, gid, mtime } = inode;
    return { mode, uid, gid, mtime, xattrs: this.image.xattrs(inode) };
  }
}
