import { type BigIntStats, lstatSync, readdirSync, readlinkSync } from 'node:fs';
import { extendedAttributes } from '../linux.js';
import { BadSquashfs } from './bad-squashfs.js';
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

/** Deepest nesting of directories: no path is longer than 4096 bytes. */
const DEPTH_LIMIT = 2048;

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

class OverlayWalk {
  /** Inodes of the source by their numbers. */
  private readonly inodes = new Map<number, Inode>();
  /** Nodes with several links: those of the image by number, others by the number of the overlay. */
  private readonly linked = new Map<string, TreeNode>();
  private readonly hasLinkIndex: boolean;
  /** Bytes of listings that may still be read; a directory that is in itself never ends. */
  private listingBudget: number;
  private droppedXattrs = 0;

  constructor(
    private readonly image: SquashfsImage,
    private readonly overlay: Overlay,
  ) {
    this.hasLinkIndex = namesIn(overlay.index).length > 0;
    for (const inode of image.inodes()) this.inodes.set(inode.number, inode);
    // A directory is read at most twice: as itself, and for twins of files that were put in its place.
    this.listingBudget = 2 * image.listingBytes;
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
    const twins = new Map(twin ? this.list(twin).map((entry) => [entry.name, entry.inode]) : []);
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
    if (!isUpper && origin && agrees(origin, stats)) return this.adopt(path, origin, depth);
    if (stats.isDirectory()) return this.walk(path, stats, twin?.kind === 'directory' ? twin : null, depth);
    const twins = [origin, twin].filter((inode) => inode?.kind === 'file');
    return this.shared(stats.nlink > 1n ? `overlay ${stats.ino}` : null, () => this.make(path, stats, twins));
  }

  /** The inode of the image that a file of the overlay is or was. */
  private originOf({ ino }: BigIntStats): Inode | null {
    const LAYER_SHIFT = 62n;
    const LOWER_LAYER = 1n;
    if (ino >> LAYER_SHIFT !== LOWER_LAYER) return null;
    return this.inodes.get(Number(ino & 0xffff_ffffn)) ?? null;
  }

  /** Takes what the image has, unless a link to the same file may have changed it by another name. */
  private adopt(path: string, inode: Inode, depth: number): TreeNode {
    refuseDepth(depth);
    if (inode.kind === 'directory') return this.adoptDirectory(path, inode, depth);
    if (inode.links === 1) return this.nodeOf(inode);
    if (!this.hasLinkIndex) return this.shared(`source ${inode.number}`, () => this.nodeOf(inode));
    const stats = lstatSync(bytes(this.overlay.merged + path), { bigint: true });
    return this.shared(`overlay ${stats.ino}`, () => this.make(path, stats, inode.kind === 'file' ? [inode] : []));
  }

  private adoptDirectory(path: string, inode: DirectoryInode, depth: number): TreeDirectory {
    const entries = this.list(inode).map(({ name, inode: reference }) => ({
      name,
      node: this.adopt(`${path}/${name}`, this.image.inode(reference), depth + 1),
    }));
    return { kind: 'directory', ...this.attributesOf(inode), entries };
  }

  private list(directory: DirectoryInode) {
    this.listingBudget -= directory.length;
    if (this.listingBudget < 0) throw new BadSquashfs('a directory is in itself, or in several others');
    return this.image.list(directory);
  }

  private shared(key: string | null, make: () => TreeNode): TreeNode {
    if (key === null) return make();
    const node = this.linked.get(key) ?? make();
    this.linked.set(key, node);
    return node;
  }

  private nodeOf(inode: Exclude<Inode, DirectoryInode>): TreeNode {
    const attributes = this.attributesOf(inode);
    if (inode.kind === 'file') return { kind: 'file', ...attributes, content: { from: 'source', inode } };
    if (inode.kind === 'symlink') return { kind: 'symlink', ...attributes, target: inode.target };
    if ('device' in inode) return { kind: inode.kind, ...attributes, device: inode.device };
    return { kind: inode.kind, ...attributes };
  }

  private attributesOf(inode: Inode): Attributes {
    const { mode, uid, gid, mtime } = inode;
    return { mode, uid, gid, mtime, xattrs: this.image.xattrs(inode) };
  }

  /** A node of what the overlay shows. */
  private make(path: string, stats: BigIntStats, twins: FileInode[]): TreeNode {
    const kind = kindOf(stats);
    const attributes = this.attributes(path, stats);
    const place = this.overlay.merged + path;
    if (kind === 'symlink')
      return { kind, ...attributes, target: readlinkSync(bytes(place), { encoding: 'buffer' }) };
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

function refuseDepth(depth: number): void {
  if (depth > DEPTH_LIMIT) throw new BadSquashfs(`its directories are more than ${DEPTH_LIMIT} deep`);
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
