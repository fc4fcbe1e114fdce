import { type BigIntStats, lstatSync, readdirSync, readlinkSync } from 'node:fs';
import { extendedAttributes } from '../linux.js';
import { ImageTree, refuseDepth } from './image-tree.js';
import type { DirectoryInode, FileInode, Inode, InodeKind } from './inode.js';
import type { SquashfsImage } from './squashfs-image.js';
import type { Attributes, TreeDirectory, TreeEntry, TreeNode } from './tree.js';
import { NO_XATTRS, type Xattr, XATTR_PREFIXES } from './xattrs.js';

/** An overlay over a mounted image. */
export interface Overlay {
  /** Path of its mount, with `index=on,redirect_dir=on,xino=on,metacopy=off`. Nobody may change it meanwhile. */
  merged: string;
  /** Path of its upper directory. */
  upper: string;
  /** Path of its index of hard links, `index` in its work directory; need not exist. */
  index: string;
}

/** The tree of an overlay, and what of it an image cannot hold. */
export interface MergedTree {
  root: TreeDirectory;
  /** Extended attributes that were left out, as POSIX ACLs: SquashFS has no place for them. */
  droppedXattrs: number;
}

/**
 * Reads the tree of an overlay. Whatever lies in no directory that the overlay has copied up is taken from the tables of the image, without
 * looking at files; the rest is walked.
 *
 * With `xino=on` the kernel gives files of the lower layer the number that the image gives them, below high bits that tell the layer
 * (Linux, Documentation/filesystems/overlayfs.rst, "Inode properties"). It keeps that number after a copy-up; so it tells where a file came
 * from, and the upper directory whether it is still that.
 * @throws BadSquashfs
 */
export function readMergedTree(image: SquashfsImage, overlay: Overlay): MergedTree {
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
  /** Inodes of the source by their numbers. */
  private readonly inodes = new Map<number, Inode>();
  /** Nodes with several links, by the numbers that the overlay gives them. */
  private readonly linked = new Map<bigint, TreeNode>();
  private droppedXattrs = 0;

  constructor(
    private readonly image: SquashfsImage,
    private readonly overlay: Overlay,
  ) {
    // Where a file with several names was changed by one of them, the others do not show in the upper layer.
    const hasLinkIndex = namesIn(overlay.index).length > 0;
    this.source = new ImageTree(image, hasLinkIndex ? (path, inode) => this.enterLinked(path, inode) : null);
    for (const inode of image.inodes()) this.inodes.set(inode.number, inode);
  }

  run(): MergedTree {
    const stats = lstatSync(bytes(this.overlay.merged), { bigint: true });
    const root = this.walk('', stats, this.image.root(), 0);
    return { root, droppedXattrs: this.droppedXattrs };
  }

  /**
   * Walks a directory that is in the upper layer.
   * @param path from the root, empty or with a slash at its beginning
   * @param twin the directory of the image with that path
   */
  private walk(path: string, stats: BigIntStats, twin: DirectoryInode | null, depth: number): TreeDirectory {
    refuseDepth(depth);
    const twins = new Map(twin ? this.source.list(twin).map((entry) => [entry.name, entry.inode]) : []);
    const changed = new Set(namesIn(this.overlay.upper + path));
    const names = readdirSync(bytes(this.overlay.merged + path), { encoding: 'latin1' }).toSorted(byBytes);
    const entries: TreeEntry[] = names.map((name) => {
      const reference = twins.get(name);
      const there = reference ? this.image.inode(reference) : null;
      return { name, node: this.enter(`${path}/${name}`, there, changed.has(name), depth + 1) };
    });
    return { kind: 'directory', ...this.attributes(path, stats), entries };
  }

  /** @param twin what the image has at this path */
  private enter(path: string, twin: Inode | null, isUpper: boolean, depth: number): TreeNode {
    const stats = lstatSync(bytes(this.overlay.merged + path), { bigint: true });
    const origin = this.originOf(stats);
    if (!isUpper && origin && agrees(origin, stats)) return this.source.node(path, origin, depth);
    if (stats.isDirectory()) return this.walk(path, stats, twin?.kind === 'directory' ? twin : null, depth);
    const twins = [origin, twin].filter((inode) => inode?.kind === 'file');
    return this.leaf(path, stats, twins);
  }

  /** The inode of the image that a file of the overlay is or was. */
  private originOf({ ino }: BigIntStats): Inode | null {
    if (!LOWER_PREFIXES.has(ino >> 32n)) return null;
    return this.inodes.get(Number(ino & 0xffff_ffffn)) ?? null;
  }

  /** A file of the image that has several names. */
  private enterLinked(path: string, inode: Inode): TreeNode {
    const stats = lstatSync(bytes(this.overlay.merged + path), { bigint: true });
    return this.leaf(path, stats, inode.kind === 'file' ? [inode] : []);
  }

  private leaf(path: string, stats: BigIntStats, twins: FileInode[]): TreeNode {
    if (stats.nlink === 1n) return this.make(path, stats, twins);
    const node = this.linked.get(stats.ino) ?? this.make(path, stats, twins);
    this.linked.set(stats.ino, node);
    return node;
  }

  /** A node of what the overlay shows. */
  private make(path: string, stats: BigIntStats, twins: FileInode[]): TreeNode {
    const kind = kindOf(stats);
    const attributes = this.attributes(path, stats);
    const place = this.overlay.merged + path;
    if (kind === 'symlink') return { kind, ...attributes, target: readlinkSync(bytes(place), { encoding: 'buffer' }) };
    if (kind === 'fifo' || kind === 'socket') return { kind, ...attributes };
    if (kind === 'block device' || kind === 'character device')
      return { kind, ...attributes, device: encodeDevice(stats.rdev) };
    const [size, allocated] = [Number(stats.size), Number(stats.blocks) * 512];
    return { kind: 'file', ...attributes, content: { from: 'file', path: place, size, allocated, twins } };
  }

  private attributes(path: string, stats: BigIntStats): Attributes {
    return {
      mode: Number(stats.mode) & 0o7777,
      uid: Number(stats.uid),
      gid: Number(stats.gid),
      mtime: seconds(stats),
      xattrs: this.xattrs(this.overlay.merged + path),
    };
  }

  private xattrs(path: string): readonly Xattr[] {
    const all = extendedAttributes(bytes(path));
    if (all.length === 0) return NO_XATTRS;
    const kept = all.filter(({ name }) => XATTR_PREFIXES.some((prefix) => name.startsWith(prefix)));
    this.droppedXattrs += all.length - kept.length;
    return kept;
  }
}

function bytes(path: string): Buffer {
  return Buffer.from(path, 'latin1');
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

/** Texts of a byte per character have the order of their bytes. */
function byBytes(a: string, b: string): number {
  return a < b ? -1 : Number(a > b);
}

/** Whether a file looks as the image says: a guard against a kernel that numbers files otherwise. */
function agrees(inode: Inode, stats: BigIntStats): boolean {
  const looks = [kindOf(stats), Number(stats.mode) & 0o7777, Number(stats.uid), Number(stats.gid), seconds(stats)];
  const says = [inode.kind, inode.mode, inode.uid, inode.gid, inode.mtime];
  const sameSize = inode.kind !== 'file' || inode.size === Number(stats.size);
  return sameSize && looks.every((value, index) => value === says[index]);
}

/** Times of an image are 32 bits without a sign; earlier and later ones become the first and the last. */
function seconds({ mtimeNs }: BigIntStats): number {
  return Math.min(Math.max(Math.floor(Number(mtimeNs / 1_000_000_000n)), 0), 0xffff_ffff);
}

function kindOf(stats: BigIntStats): InodeKind {
  if (stats.isFile()) return 'file';
  if (stats.isDirectory()) return 'directory';
  if (stats.isSymbolicLink()) return 'symlink';
  if (stats.isBlockDevice()) return 'block device';
  if (stats.isCharacterDevice()) return 'character device';
  return stats.isFIFO() ? 'fifo' : 'socket';
}

/** From `dev_t` of glibc (gnu_dev_major, gnu_dev_minor) to the 32 bits of Linux (`new_encode_dev` of linux/kdev_t.h). */
function encodeDevice(device: bigint): number {
  const major = ((device >> 8n) & 0xfffn) | ((device >> 32n) & ~0xfffn);
  const minor = (device & 0xffn) | ((device >> 12n) & ~0xffn);
  return Number(((minor & 0xffn) | (major << 8n) | ((minor & ~0xffn) << 12n)) & 0xffff_ffffn);
}
