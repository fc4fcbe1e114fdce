import type { FileInode, StoredContent } from './inode.js';
import type { Xattr } from './xattrs.js';

/*
 * The tree that an image is made of, in memory. Names are a byte per character (latin1), since names of files need not be UTF-8.
 */

/** What every node of a tree has. There are as many nodes as files, a million of them in the largest roots: whatever is in them counts. */
export interface Attributes {
  /** The lower 12 bits of `st_mode`. */
  mode: number;
  uid: number;
  gid: number;
  /** Seconds since 1970. */
  mtime: number;
  xattrs: readonly Xattr[];
}

interface Node extends Attributes {
  /** The number of its inode in the new image, given when that is written; 0 before. */
  number: number;
}

export interface TreeEntry {
  name: string;
  node: TreeNode;
}

export interface TreeDirectory extends Node {
  kind: 'directory';
  /** Sorted by the bytes of names. */
  entries: TreeEntry[];
}

/** Content that is in the source image already. */
export interface OldContent {
  from: 'source';
  /** Number of an inode of the source. */
  inode: number;
  /** Bytes of holes. */
  sparse: number;
}

/** Content that the source image may lack. */
export interface NewContent {
  from: 'file';
  /** Path of its directory on the machine, and its name, latin1. There are as many of these as files: what many have in common is one text. */
  directory: string;
  name: string;
  /** Bytes. */
  size: number;
  /** Bytes that the file takes on its disk: fewer than `size` where it has holes. */
  allocated: number;
  /** Files of the source that may have the same content, the likeliest first. */
  twins: FileInode[];
  /** Where the new image has it; null until it is stored. */
  stored: StoredContent | null;
}

/** Path of a content on the machine, latin1. */
export function pathOf({ directory, name }: NewContent): string {
  return `${directory}/${name}`;
}

export interface TreeFile extends Node {
  kind: 'file';
  content: OldContent | NewContent;
}

/** Made in one piece: an object that another is spread into takes half as much memory again. */
export function fileNode({ mode, uid, gid, mtime, xattrs }: Attributes, content: OldContent | NewContent): TreeFile {
  return { kind: 'file', number: 0, mode, uid, gid, mtime, xattrs, content };
}

export interface TreeSymlink extends Node {
  kind: 'symlink';
  target: Buffer;
}

export interface TreeDevice extends Node {
  kind: 'block device' | 'character device';
  /** As Linux encodes it in 32 bits (`new_encode_dev`). */
  device: number;
}

export interface TreePipe extends Node {
  kind: 'fifo' | 'socket';
}

/** Where several entries hold the same node, they are its hard links. */
export type TreeNode = TreeDirectory | TreeFile | TreeSymlink | TreeDevice | TreePipe;

/** All nodes but directories, each once, in the order of the tree. */
export function* leaves(directory: TreeDirectory, seen = new Set<TreeNode>()): Generator<TreeNode, void, void> {
  for (const { node } of directory.entries) {
    if (node.kind === 'directory') {
      yield* leaves(node, seen);
    } else if (!seen.has(node)) {
      seen.add(node);
      yield node;
    }
  }
}
