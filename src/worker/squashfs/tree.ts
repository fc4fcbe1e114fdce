import type { FileInode } from './inode.js';
import type { Xattr } from './xattrs.js';

/*
 * The tree that an image is made of, in memory. Names are a byte per character (latin1), since names of files need not be UTF-8.
 */

/** What every node of a tree has. */
export interface Attributes {
  /** The lower 12 bits of `st_mode`. */
  mode: number;
  uid: number;
  gid: number;
  /** Seconds since 1970. */
  mtime: number;
  xattrs: readonly Xattr[];
}

export interface TreeEntry {
  name: string;
  node: TreeNode;
}

export interface TreeDirectory extends Attributes {
  kind: 'directory';
  /** Sorted by the bytes of names. */
  entries: TreeEntry[];
}

/** Content that is in the source image already. */
export interface OldContent {
  from: 'source';
  inode: FileInode;
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
}

/** Path of a content on the machine, latin1. */
export function pathOf({ directory, name }: NewContent): string {
  return `${directory}/${name}`;
}

export interface TreeFile extends Attributes {
  kind: 'file';
  content: OldContent | NewContent;
}

/** Spread out, its attributes would take half as much memory again, for each of hundreds of thousands of files. */
export function fileNode({ mode, uid, gid, mtime, xattrs }: Attributes, content: OldContent | NewContent): TreeFile {
  return { kind: 'file', mode, uid, gid, mtime, xattrs, content };
}

export interface TreeSymlink extends Attributes {
  kind: 'symlink';
  target: Buffer;
}

export interface TreeDevice extends Attributes {
  kind: 'block device' | 'character device';
  /** As Linux encodes it in 32 bits (`new_encode_dev`). */
  device: number;
}

export interface TreePipe extends Attributes {
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
