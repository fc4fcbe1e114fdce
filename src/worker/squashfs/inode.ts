import { BadSquashfs } from './bad-squashfs.js';
import { FieldReader } from './field-reader.js';

/** What all inodes of an image say. */
interface InodeHeader {
  /** The lower 12 bits of `st_mode`. */
  mode: number;
  uid: number;
  gid: number;
  /** Seconds since 1970. */
  mtime: number;
  number: number;
  links: number;
  /** Number of its set of extended attributes; null for none. */
  xattrs: number | null;
}

export interface DirectoryInode extends InodeHeader {
  kind: 'directory';
  /** Where its listing begins in the directory table. */
  listing: { block: number; offset: number };
  /** Bytes of the listing. */
  length: number;
}

/** How the content of a file is stored in an image. */
export interface StoredContent {
  /** Bytes. */
  size: number;
  /** Position of the first block; the others follow without a gap. */
  start: number;
  /** Sizes of the blocks as they are stored, 32 bits each; see `blockLength`. */
  blocks: Buffer;
  /** The block of fragments that holds the rest of the content, behind the last whole block; null where a block of its own does. */
  fragment: { index: number; offset: number } | null;
  /** Bytes of holes. */
  sparse: number;
}

export interface FileInode extends InodeHeader, StoredContent {
  kind: 'file';
}

export interface SymlinkInode extends InodeHeader {
  kind: 'symlink';
  target: Buffer;
}

export interface DeviceInode extends InodeHeader {
  kind: 'block device' | 'character device';
  /** As Linux encodes it in 32 bits (`new_encode_dev`). */
  device: number;
}

export interface PipeInode extends InodeHeader {
  kind: 'fifo' | 'socket';
}

export type Inode = DirectoryInode | FileInode | SymlinkInode | DeviceInode | PipeInode;
export type InodeKind = Inode['kind'];

/** Kinds by their numbers in the format, from 1; those of inodes with more fields are larger by 7. */
export const INODE_KINDS: readonly InodeKind[] = [
  'directory',
  'file',
  'symlink',
  'block device',
  'character device',
  'fifo',
  'socket',
];
export const EXTENDED = 7;
/** Stands for no fragment, no extended attributes. */
export const NOTHING = 0xffff_ffff;
/** Bytes of the smallest inode. */
export const SMALLEST_INODE = 20;
/** Longest target of a symlink: a page of memory, less its end. */
const TARGET_LIMIT = 4095;

/** A stored size of a data block: bytes, and bit 24 where the block is not compressed. 0 is a hole. */
const UNCOMPRESSED = 1 << 24;

/** Bytes that a block takes in the image. */
export function blockLength(word: number): number {
  return (word & ~UNCOMPRESSED) >>> 0;
}

export function isCompressed(word: number): boolean {
  return (word & UNCOMPRESSED) === 0;
}

export function blockWord(length: number, compressed: boolean): number {
  return compressed ? length : length | UNCOMPRESSED;
}

/** A data block as it stands in an image. */
export interface StoredBlock {
  stored: Buffer;
  /** As `blockLength` takes it. */
  word: number;
}

/** Bytes that the blocks of a content take in the image, without its fragment. */
export function storedLength({ blocks }: Pick<StoredContent, 'blocks'>): number {
  let length = 0;
  for (let at = 0; at < blocks.length; at += 4) length += blockLength(blocks.readUInt32LE(at));
  return length;
}

/** Bytes of a content that stand in a fragment. */
export function tailLength(content: StoredContent, blockSize: number): number {
  return content.fragment ? content.size % blockSize : 0;
}

/** What inodes are read with. */
export interface InodeContext {
  blockSize: number;
  /** Owners and groups, by their numbers in inodes. */
  ids: readonly number[];
}

/**
 * Reads one inode of the inode table; the reader then stands behind it. Layouts: squashfs.rst, section 3.3, and the `struct squashfs_*_inode`
 * of fs/squashfs/squashfs_fs.h.
 * @throws BadSquashfs
 */
export function readInode(fields: FieldReader, context: InodeContext): Inode {
  const type = fields.u16();
  const isExtended = type > EXTENDED;
  const kind = INODE_KINDS[(isExtended ? type - EXTENDED : type) - 1];
  if (!kind) throw new BadSquashfs(`an inode has the unknown type ${type}`);
  // Images have hundreds of thousands of these: each is made in one piece.
  const header = {
    mode: fields.u16() & 0o7777,
    uid: owner(context, fields.u16()),
    gid: owner(context, fields.u16()),
    mtime: fields.u32(),
    number: fields.u32(),
  };
  if (kind === 'directory') return isExtended ? extendedDirectory(header, fields) : basicDirectory(header, fields);
  if (kind === 'file') return isExtended ? extendedFile(header, fields, context) : basicFile(header, fields, context);
  return special(kind, header, fields, isExtended);
}

type Header = Omit<InodeHeader, 'links' | 'xattrs'>;

function owner({ ids }: InodeContext, index: number): number {
  const id = ids[index];
  if (id === undefined) throw new BadSquashfs('an inode has an owner that its id table lacks');
  return id;
}

function special(
  kind: Exclude<InodeKind, 'directory' | 'file'>,
  { mode, uid, gid, mtime, number }: Header,
  fields: FieldReader,
  isExtended: boolean,
): Inode {
  const links = fields.u32();
  const target = kind === 'symlink' ? readTarget(fields) : null;
  const device = kind === 'block device' || kind === 'character device' ? fields.u32() : 0;
  const xattrs = isExtended ? optional(fields.u32()) : null;
  if (kind === 'symlink') return { kind, mode, uid, gid, mtime, number, links, xattrs, target: target! };
  if (kind === 'fifo' || kind === 'socket') return { kind, mode, uid, gid, mtime, number, links, xattrs };
  return { kind, mode, uid, gid, mtime, number, links, xattrs, device };
}

function readTarget(fields: FieldReader): Buffer {
  const length = fields.u32();
  if (length === 0 || length > TARGET_LIMIT) throw new BadSquashfs(`a symlink has a target of ${length} bytes`);
  return fields.slice(length);
}

function optional(value: number): number | null {
  return value === NOTHING ? null : value;
}

function basicDirectory({ mode, uid, gid, mtime, number }: Header, fields: FieldReader): DirectoryInode {
  const block = fields.u32();
  const links = fields.u32();
  const length = listingLength(fields.u16());
  const listing = { block, offset: fields.u16() };
  // The number of its parent.
  fields.u32();
  return { kind: 'directory', mode, uid, gid, mtime, number, links, xattrs: null, listing, length };
}

function extendedDirectory({ mode, uid, gid, mtime, number }: Header, fields: FieldReader): DirectoryInode {
  const links = fields.u32();
  const length = listingLength(fields.u32());
  const block = fields.u32();
  // The number of its parent.
  fields.u32();
  const indexes = fields.u16();
  const listing = { block, offset: fields.u16() };
  const xattrs = optional(fields.u32());
  for (let index = 0; index < indexes; index++) {
    fields.slice(8);
    fields.slice(fields.u32() + 1);
  }
  return { kind: 'directory', mode, uid, gid, mtime, number, links, xattrs, listing, length };
}

/** The size of a directory counts 3 bytes for `.` and `..`, which are not stored. */
function listingLength(size: number): number {
  return Math.max(size - 3, 0);
}

function basicFile({ mode, uid, gid, mtime, number }: Header, fields: FieldReader, context: InodeContext): FileInode {
  const start = fields.u32();
  const fragment = readFragment(fields);
  const size = fields.u32();
  const blocks = readBlocks(fields, context, size, fragment !== null);
  const [links, xattrs, sparse] = [1, null, 0];
  return { kind: 'file', mode, uid, gid, mtime, number, links, xattrs, size, start, blocks, fragment, sparse };
}

function extendedFile(
  { mode, uid, gid, mtime, number }: Header,
  fields: FieldReader,
  context: InodeContext,
): FileInode {
  const start = fields.u64();
  const size = fields.u64();
  const sparse = fields.u64();
  const links = fields.u32();
  const fragment = readFragment(fields);
  const xattrs = optional(fields.u32());
  const blocks = readBlocks(fields, context, size, fragment !== null);
  return { kind: 'file', mode, uid, gid, mtime, number, links, xattrs, size, start, blocks, fragment, sparse };
}

function readFragment(fields: FieldReader): FileInode['fragment'] {
  const index = fields.u32();
  const offset = fields.u32();
  return index === NOTHING ? null : { index, offset };
}

function readBlocks(fields: FieldReader, { blockSize }: InodeContext, size: number, hasFragment: boolean): Buffer {
  const blocks = hasFragment ? Math.floor(size / blockSize) : Math.ceil(size / blockSize);
  return blocks === 0 ? NO_BLOCKS : fields.slice(blocks * 4);
}

const NO_BLOCKS = Buffer.alloc(0);
