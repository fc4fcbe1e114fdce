import { type BigIntStats, readdirSync } from 'node:fs';
import { asLatin1, byBytes, bytes, DiskTree, kindOf, type PackableTree, secondsOf } from './disk-tree.js';
import { ImageTree, isWhiteout } from './image-tree.js';
import type { DirectoryInode, FileInode, Inode } from './inode.js';
import type { SquashfsImage } from './squashfs-image.js';
import type { TreeDirectory, TreeEntry, TreeNode } from './tree.js';

/** An overlay over a mounted image. */
export interface Overlay {
  /** Path of its mount, with `index=on,redirect_dir=on,xino=on,metacopy=off`. Nobody may change it meanwhile. */
  merged: string;
  /** Path of its upper directory. */
  upper: string;
  /** Path of its index of hard links, `index` in its work directory; need not exist. */
  index: string;
}

/**
 * Reads the tree of an overlay. Whatever lies in no directory that the overlay has copied up is taken from the tables of the image, without
 * looking at files; the rest is walked.
 *
 * With `xino=on` the kernel gives files of the lower layer the number that the image gives them, below high bits that tell the layer
 * (Linux, Documentation/filesystems/overlayfs.rst, "Inode properties"). It keeps that number after a copy-up; so it tells where a file came
 * from, and the upper directory whether it is still that.
 * @throws BadSquashfs for the source, SquashfsLimit
 */
export function readMergedTree(image: SquashfsImage, overlay: Overlay): PackableTree {
  return new OverlayWalk(image, overlay).run();
}

/**
 * The upper 32 bits of numbers of files of the lower layer, of which there is one. The kernel takes 32 bits for layers where inode numbers of
 * all layers are known to be 32 bits long (ext4), and 2 otherwise (xfs); the lowest of them is kept for something else (ovl_map_dev_ino of
 * fs/overlayfs/inode.c).
 */
const LOWER_PREFIXES: ReadonlySet<bigint> = new Set([1n << 1n, 1n << 31n]);

class OverlayWalk {
  private readonly source: ImageTree;
  private readonly merged: DiskTree;
  private readonly upper: string;

  constructor(
    private readonly image: SquashfsImage,
    overlay: Overlay,
  ) {
    this.merged = new DiskTree(overlay.merged);
    this.upper = asLatin1(overlay.upper);
    // Where a file with several names was changed by one of them, the others do not show in the upper layer.
    const hasLinkIndex = namesIn(asLatin1(overlay.index)).length > 0;
    this.source = new ImageTree(image, hasLinkIndex ? (path, inode) => this.enterLinked(path, inode) : null);
  }

  run(): PackableTree {
    const root = this.walk('', this.merged.stat(''), this.image.root(), 0);
    return { root, droppedXattrs: this.merged.droppedXattrs };
  }

  /**
   * Walks a directory that is in the upper layer.
   * @param path from the root, empty or with a slash at its beginning
   * @param twin the directory of the image with that path
   */
  private walk(path: string, stats: BigIntStats, twin: DirectoryInode | null, depth: number): TreeDirectory {
    this.merged.refuseDepth(path, depth);
    const origin = this.originOf(stats);
    // One that was renamed has the files of the directory that it was. To ask an overlay for them costs a look at each in both layers.
    const old = origin?.kind === 'directory' ? origin : twin;
    const twins = new Map(old ? this.source.list(old).map((entry) => [entry.name, entry.inode]) : []);
    const changed = new Set(namesIn(this.upper + path));
    const names = origin === old && old ? merge([...twins.keys()], [...changed]) : this.merged.names(path);
    let isTrusted = false;
    const entries = names.flatMap((name): TreeEntry[] => {
      const place = `${path}/${name}`;
      const reference = twins.get(name);
      const there = reference ? this.image.inode(reference) : null;
      const isOld = there !== null && !changed.has(name) && old === origin;
      if (isOld && (isTrusted || isWhiteout(there))) return [{ name, node: this.source.node(place, there, depth + 1) }];
      const facts = this.merged.find(place);
      if (!facts) return [];
      // What the upper layer does not have is as the image has it. One of the files is looked at, to be sure of the directory.
      isTrusted ||= isOld && this.isSame(there, facts);
      return [{ name, node: this.enter(place, facts, there, changed.has(name), depth + 1) }];
    });
    return { kind: 'directory', number: 0, ...this.merged.attributes(path, stats), entries };
  }

  /** @param twin what the image has at this path */
  private enter(path: string, stats: BigIntStats, twin: Inode | null, isUpper: boolean, depth: number): TreeNode {
    const origin = this.originOf(stats);
    if (!isUpper && origin && agrees(origin, stats)) return this.source.node(path, origin, depth);
    if (stats.isDirectory()) return this.walk(path, stats, twin?.kind === 'directory' ? twin : null, depth);
    const twins = [origin, twin].filter((inode) => inode?.kind === 'file');
    return this.leaf(path, stats, twins);
  }

  private isSame(inode: Inode, stats: BigIntStats): boolean {
    return this.originOf(stats)?.number === inode.number && agrees(inode, stats);
  }

  /** The inode of the image that a file of the overlay is or was. */
  private originOf({ ino }: BigIntStats): Inode | null {
    return LOWER_PREFIXES.has(ino >> 32n) ? this.image.inodeByNumber(Number(ino & 0xffff_ffffn)) : null;
  }

  /** A file of the image that has several names. */
  private enterLinked(path: string, inode: Inode): TreeNode {
    return this.leaf(path, this.merged.stat(path), inode.kind === 'file' ? [inode] : []);
  }

  private leaf(path: string, stats: BigIntStats, twins: FileInode[]): TreeNode {
    const end = path.lastIndexOf('/');
    return this.merged.leaf(path.slice(0, end), path.slice(end + 1), stats, twins);
  }
}

/** All names of two lists, each once, sorted by their bytes. */
function merge(one: string[], other: string[]): string[] {
  return [...new Set([...one, ...other])].toSorted(byBytes);
}

/** Names in a directory of the machine; none where it is not there, or is no directory. */
function namesIn(path: string): string[] {
  try {
    return readdirSync(bytes(path), { encoding: 'latin1' });
  } catch (error) {
    if (['ENOENT', 'ENOTDIR'].includes((error as NodeJS.ErrnoException).code ?? '')) return [];
    throw error;
  }
}

/** Whether a file looks as the image says: a guard against a kernel that numbers files otherwise. */
function agrees(inode: Inode, stats: BigIntStats): boolean {
  const looks = [kindOf(stats), Number(stats.mode) & 0o7777, Number(stats.uid), Number(stats.gid), secondsOf(stats)];
  const says = [inode.kind, inode.mode, inode.uid, inode.gid, inode.mtime];
  const sameSize = inode.kind !== 'file' || inode.size === Number(stats.size);
  return sameSize && looks.every((value, index) => value === says[index]);
}
