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
  return word & ~UNCOMPRESSED;
}

export function isCompressed(word: number): boolean {
  return (word & UNCOMPRESSED) === 0;
}

export function blockWord(length: number, compressed: boolean): number {
  return compressed ? length : length | UNCOMPRESSED;
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
  const header = {
    mode: fields.u16() & 0o7777,
    uid: owner(context, fields.u16()),
    gid: owner(context, fields.u16()),
    mtime: fields.u32(),
    number: fields.u32(),
  };
  const body = isExtended ? extendedBody(kind, fields, context) : basicBody(kind, fields, context);
  return { ...header, ...body } as Inode;
}

function owner({ ids }: InodeContext, index: number): number {
  const id = ids[index];
  if (id === undefined) throw new BadSquashfs('an inode has an owner that its id table lacks');
  return id;
}

function basicBody(kind: InodeKind, fields: FieldReader, context: InodeContext) {
  if (kind === 'directory') return basicDirectory(fields);
  if (kind === 'file') return basicFile(fields, context);
  return { kind, links: fields.u32(), ...rest(kind, fields), xattrs: null };
}

function extendedBody(kind: InodeKind, fields: FieldReader, context: InodeContext) {
  if (kind === 'directory') return extendedDirectory(fields);
  if (kind === 'file') return extendedFile(fields, context);
  return { kind, links: fields.u32(), ...rest(kind, fields), xattrs: optional(fields.u32()) };
}

function rest(kind: InodeKind, fields: FieldReader) {
  if (kind === 'symlink') return { target: readTarget(fields) };
  return kind === 'block device' || kind === 'character device' ? { device: fields.u32() } : {};
}

function readTarget(fields: FieldReader): Buffer {
  const length = fields.u32();
  if (length === 0 || length > TARGET_LIMIT) throw new BadSquashfs(`a symlink has a target of ${length} bytes`);
  return fields.slice(length);
}

function optional(value: number): number | null {
  return value === NOTHING ? null : value;
}

function basicDirectory(fields: FieldReader) {
  const [block, links, size, offset] = [fields.u32(), fields.u32(), fields.u16(), fields.u16()];
  const parent = fields.u32();
  return { kind: 'directory', links, ...listing(block, offset, size), parent, xattrs: null };
}

function extendedDirectory(fields: FieldReader) {
  const [links, size, block, parent] = [fields.u32(), fields.u32(), fields.u32(), fields.u32()];
  const [indexes, offset, xattrs] = [fields.u16(), fields.u16(), optional(fields.u32())];
  for (let index = 0; index < indexes; index++) {
    fields.slice(8);
    fields.slice(fields.u32() + 1);
  }
  return { kind: 'directory', links, ...listing(block, offset, size), parent, xattrs };
}

/** The size of a directory counts 3 bytes for `.` and `..`, which are not stored. */
function listing(block: number, offset: number, size: number) {
  return { listing: { block, offset }, length: Math.max(size - 3, 0) };
}

function basicFile(fields: FieldReader, context: InodeContext) {
  const [start, fragment, offset, size] = [fields.u32(), fields.u32(), fields.u32(), fields.u32()];
  const content = { start, size, sparse: 0, links: 1, xattrs: null };
  return { kind: 'file', ...content, ...stored(fields, context, size, fragment, offset) };
}

function extendedFile(fields: FieldReader, context: InodeContext) {
  const [start, size, sparse, links] = [fields.u64(), fields.u64(), fields.u64(), fields.u32()];
  const [fragment, offset, xattrs] = [fields.u32(), fields.u32(), optional(fields.u32())];
  const content = { start, size, sparse, links, xattrs };
  return { kind: 'file', ...content, ...stored(fields, context, size, fragment, offset) };
}

function stored(fields: FieldReader, { blockSize }: InodeContext, size: number, fragment: number, offset: number) {
  const isWhole = fragment === NOTHING;
  const blocks = isWhole ? Math.ceil(size / blockSize) : Math.floor(size / blockSize);
  return { blocks: fields.slice(blocks * 4), fragment: isWhole ? null : { index: fragment, offset } };
}
