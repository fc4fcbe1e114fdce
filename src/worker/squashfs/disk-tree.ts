import { type BigIntStats, lstatSync, readdirSync, readlinkSync } from 'node:fs';
import { extendedAttributes } from '../linux.js';
import { DEPTH_LIMIT } from './image-tree.js';
import type { FileInode, InodeKind } from './inode.js';
import { type Attributes, fileNode, type NewContent, type TreeDirectory, type TreeNode } from './tree.js';
import { SquashfsLimit } from './tree-writer.js';
import { NO_XATTRS, type Xattr, XATTR_PREFIXES } from './xattrs.js';

/** A tree for an image, and what of it an image cannot hold. */
export interface PackableTree {
  root: TreeDirectory;
  /** Extended attributes that were left out, as POSIX ACLs: SquashFS has no place for them. */
  droppedXattrs: number;
}

/**
 * Reads the tree below a directory of the machine.
 * @param root nobody may change anything in it meanwhile
 * @param pristine where it is an overlay, its lower layer; see `isWhiteout`
 * @throws SquashfsLimit
 */
export function readDiskTree(root: string, pristine: string | null): PackableTree {
  const disk = new DiskTree(root, pristine);
  return { root: disk.directory('', disk.stat(''), 0), droppedXattrs: disk.droppedXattrs };
}

/** Bytes of a name, and of a path with its end (linux/limits.h). */
const [NAME_LIMIT, PATH_LIMIT] = [255, 4095];
/** Most bytes of a file. Nearly all of a larger one are holes, which are read as zeros for hours. */
const SIZE_LIMIT = 2 ** 40;

/** Of files of a tree that is no source's. */
const NO_TWINS: FileInode[] = [];

/** Reads nodes of a tree of the machine. Paths begin with a slash, or are empty for its root; they are a byte per character (latin1). */
export class DiskTree {
  /** Extended attributes that were left out. */
  droppedXattrs = 0;
  private readonly root: string;
  /** Nodes with several links, by the numbers of their inodes. */
  private readonly linked = new Map<bigint, TreeNode>();
  /** The directory of the file that was read last, in the tree and on the machine. */
  private latest = { path: '', place: '' };

  constructor(
    root: string,
    private readonly pristine: string | null = null,
  ) {
    this.root = asLatin1(root);
    this.latest.place = this.root;
  }

  stat(path: string): BigIntStats {
    return this.find(path) ?? lstatSync(bytes(this.root + path), { bigint: true });
  }

  /** Undefined for what is not there. */
  find(path: string): BigIntStats | undefined {
    const options = { bigint: true, throwIfNoEntry: false } as const;
    const stats = lstatSync(bytes(this.root + path), options);
    if (stats || this.pristine === null) return stats;
    // An overlay lists what it hides.
    return lstatSync(bytes(asLatin1(this.pristine) + path), options);
  }

  /** Names in a directory, sorted by their bytes. */
  names(path: string): string[] {
    return readdirSync(bytes(this.root + path), { encoding: 'latin1' }).toSorted(byBytes);
  }

  /** A directory with all that is in it. */
  directory(path: string, stats: BigIntStats, depth: number): TreeDirectory {
    this.refuseDepth(path, depth);
    const entries = this.names(path).map((name) => {
      const place = `${path}/${name}`;
      const facts = this.stat(place);
      const node = facts.isDirectory()
        ? this.directory(place, facts, depth + 1)
        : this.leaf(path, name, facts, NO_TWINS);
      return { name, node };
    });
    return { kind: 'directory', number: 0, ...this.attributes(path, stats), entries };
  }

  /**
   * What is no directory. Paths that are hard links of each other give the same node.
   * @param twins see `NewContent`
   */
  leaf(directory: string, name: string, stats: BigIntStats, twins: FileInode[]): TreeNode {
    if (stats.nlink === 1n) return this.make(directory, name, stats, twins);
    const node = this.linked.get(stats.ino) ?? this.make(directory, name, stats, twins);
    this.linked.set(stats.ino, node);
    return node;
  }

  /** @throws SquashfsLimit for what only a path that is too long for the system leads to */
  refuseDepth(path: string, depth: number): void {
    if (depth > DEPTH_LIMIT) throw new SquashfsLimit(`directories that are more than ${DEPTH_LIMIT} deep`);
    // What is in the directory has a slash and a name more.
    if (this.root.length + path.length + 1 + NAME_LIMIT > PATH_LIMIT)
      throw new SquashfsLimit(`paths of ${PATH_LIMIT} bytes, as below ${JSON.stringify(path.slice(0, 100))}…`);
  }

  attributes(path: string, stats: BigIntStats): Attributes {
    return {
      mode: Number(stats.mode) & 0o7777,
      uid: Number(stats.uid),
      gid: Number(stats.gid),
      mtime: secondsOf(stats),
      xattrs: this.xattrs(path, stats),
    };
  }

  private make(directory: string, name: string, stats: BigIntStats, twins: FileInode[]): TreeNode {
    const kind = kindOf(stats);
    const path = `${directory}/${name}`;
    const attributes = this.attributes(path, stats);
    if (kind === 'file') return fileNode(attributes, this.content(directory, name, stats, twins));
    const place = this.root + path;
    const node = { number: 0, ...attributes };
    if (kind === 'symlink') return { kind, ...node, target: readlinkSync(bytes(place), { encoding: 'buffer' }) };
    if (kind === 'fifo' || kind === 'socket') return { kind, ...node };
    if (kind !== 'block device' && kind !== 'character device') throw new Error(`a ${kind} is no leaf`);
    return { kind, ...node, device: encodeDevice(stats.rdev) };
  }

  private content(directory: string, name: string, stats: BigIntStats, twins: FileInode[]): NewContent {
    if (this.latest.path !== directory) this.latest = { path: directory, place: this.root + directory };
    const [size, allocated] = [Number(stats.size), Number(stats.blocks) * 512];
    if (size > SIZE_LIMIT)
      throw new SquashfsLimit(`${JSON.stringify(`${directory}/${name}`)}, which says that it has more than 1 TiB`);
    return { from: 'file', directory: this.latest.place, name, size, allocated, twins, stored: null };
  }

  private xattrs(path: string, stats: BigIntStats): readonly Xattr[] {
    // Such a device may be hidden (`isWhiteout`), and has none.
    if (stats.isCharacterDevice() && stats.rdev === 0n) return NO_XATTRS;
    const all = extendedAttributes(bytes(this.root + path));
    if (all.length === 0) return NO_XATTRS;
    const kept = all.filter(({ name }) => XATTR_PREFIXES.some((prefix) => name.startsWith(prefix)));
    this.droppedXattrs += all.length - kept.length;
    return kept;
  }
}

/** A path of the machine as a text of a byte per character. */
export function asLatin1(path: string): string {
  return Buffer.from(path).toString('latin1');
}

/** Such a text as bytes. */
export function bytes(path: string): Buffer {
  return Buffer.from(path, 'latin1');
}

/** Texts of a byte per character have the order of their bytes. */
export function byBytes(a: string, b: string): number {
  return a < b ? -1 : Number(a > b);
}

/** Times of an image are 32 bits without a sign; earlier and later ones become the first and the last. */
export function secondsOf({ mtimeNs }: BigIntStats): number {
  return Math.min(Math.max(Math.floor(Number(mtimeNs / 1_000_000_000n)), 0), 0xffff_ffff);
}

export function kindOf(stats: BigIntStats): InodeKind {
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
