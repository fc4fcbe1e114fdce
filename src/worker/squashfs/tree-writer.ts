import type { Codec } from './codec.js';
import { EXTENDED, INODE_KINDS, NOTHING, type StoredContent } from './inode.js';
import { METADATA_SIZE } from './metadata-reader.js';
import { encodeIndexedTable, MetadataWriter } from './metadata-writer.js';
import type { MetadataReference } from './superblock.js';
import type { TreeDirectory, TreeEntry, TreeFile, TreeNode } from './tree.js';
import { XattrWriter } from './xattr-writer.js';

/** The image would have more of something than the format, or this packer, can hold; the message says of what. */
export class SquashfsLimit extends Error {
  constructor(what: string) {
    super(`a SquashFS image cannot hold ${what}`);
    this.name = 'SquashfsLimit';
  }
}

/** The tables of an image, and what its superblock says of them. */
export interface EncodedTables {
  bytes: Buffer;
  inodes: number;
  ids: number;
  root: MetadataReference;
  inodeTable: number;
  directoryTable: number;
  fragmentTable: number | null;
  exportTable: number;
  idTable: number;
  xattrTable: number | null;
}

/**
 * Encodes all metadata of an image: inodes, directories, fragments, export table, ids and extended attributes, in the order in which
 * mksquashfs writes them, which Linux checks.
 * @param contentOf where the content of a file stands
 * @param fragments the fragment table, 16 bytes an entry
 * @param at where in the image the tables will stand
 * @throws SquashfsLimit
 */
export function encodeTables(
  codec: Codec,
  root: TreeDirectory,
  contentOf: (file: TreeFile) => StoredContent,
  fragments: Buffer,
  at: number,
): EncodedTables {
  const writer = new TreeWriter(codec, contentOf);
  writer.write(root);
  return writer.finish(fragments, at);
}

/** Where inodes begin in their table, by their numbers. */
class InodePlaces {
  private readonly blocks: Float64Array;
  private readonly offsets: Uint16Array;

  constructor(count: number) {
    this.blocks = new Float64Array(count + 1);
    this.offsets = new Uint16Array(count + 1).fill(UNWRITTEN);
  }

  has(number: number): boolean {
    return this.offsets[number] !== UNWRITTEN;
  }

  /** Start of the block of metadata. */
  block(number: number): number {
    return this.blocks[number]!;
  }

  /** Byte in that block. */
  offset(number: number): number {
    return this.offsets[number]!;
  }

  set(number: number, { block, offset }: MetadataReference): void {
    this.blocks[number] = block;
    this.offsets[number] = offset;
  }

  /** The export table: where each inode is, by its number. */
  encode(): Buffer {
    const entries = Buffer.alloc((this.offsets.length - 1) * 8);
    // As `encodeReference` has it, in parts.
    for (let number = 1; number < this.offsets.length; number++) {
      const [at, block] = [number * 8 - 8, this.block(number)];
      entries.writeUInt16LE(this.offset(number), at);
      entries.writeUInt32LE(block % 2 ** 32, at + 2);
      entries.writeUInt16LE(Math.floor(block / 2 ** 32), at + 6);
    }
    return entries;
  }
}

/** An offset that no place has. */
const UNWRITTEN = 0xffff;
/** Bytes of a header in the listing of a directory, and of an entry without its name; most entries below a header. */
const [LISTING_HEADER, LISTING_ENTRY, LISTING_RUN] = [12, 8, 256];

class TreeWriter {
  private readonly inodeTable: MetadataWriter;
  private readonly directoryTable: MetadataWriter;
  private readonly ids = new Map<number, number>();
  private readonly xattrs: XattrWriter;
  /** Nodes that have numbers. */
  private count = 0;
  /** How many names lead to a node, where there are several. */
  private readonly links = new Map<TreeNode, number>();
  private places = new InodePlaces(0);
  private root: MetadataReference = { block: 0, offset: 0 };

  constructor(
    private readonly codec: Codec,
    private readonly contentOf: (file: TreeFile) => StoredContent,
  ) {
    this.inodeTable = new MetadataWriter(codec);
    this.directoryTable = new MetadataWriter(codec);
    this.xattrs = new XattrWriter(codec);
  }

  write(root: TreeDirectory): void {
    this.number([{ name: '', node: root }]);
    this.places = new InodePlaces(this.count);
    // The parent of the root is a number that no inode has.
    this.writeDirectory(root, this.count + 1);
    this.root = { block: this.places.block(root.number), offset: this.places.offset(root.number) };
  }

  finish(fragments: Buffer, at: number): EncodedTables {
    const parts: Buffer[] = [];
    let position = at;
    const add = (bytes: Buffer) => {
      parts.push(bytes);
      position += bytes.length;
      return position - bytes.length;
    };
    const addIndexed = (content: Buffer) => {
      const { bytes, index } = encodeIndexedTable(this.codec, content, position);
      add(bytes);
      return index;
    };
    const tables = {
      inodeTable: add(this.inodeTable.finish()),
      directoryTable: add(this.directoryTable.finish()),
      fragmentTable: fragments.length ? addIndexed(fragments) : null,
      exportTable: addIndexed(this.places.encode()),
      idTable: addIndexed(Buffer.from(Uint32Array.from(this.ids.keys()).buffer)),
      xattrTable: this.xattrs.finish(add, () => position),
    };
    const counts = { inodes: this.count, ids: this.ids.size, root: this.root };
    return { ...tables, ...counts, bytes: Buffer.concat(parts) };
  }

  /** Numbers nodes directory by directory, so that the numbers in a directory are close to each other. */
  private number(entries: TreeEntry[]): void {
    for (const { node } of entries) {
      if (node.number === 0) node.number = ++this.count;
      else this.links.set(node, this.linksOf(node) + 1);
    }
    for (const { node } of entries) if (node.kind === 'directory') this.number(node.entries);
  }

  private linksOf(node: TreeNode): number {
    return this.links.get(node) ?? 1;
  }

  /** Writes what a directory holds, then its listing, then itself: each refers to what was written before. */
  private writeDirectory(directory: TreeDirectory, parent: number): void {
    for (const { node } of directory.entries) {
      if (this.places.has(node.number)) continue;
      if (node.kind === 'directory') this.writeDirectory(node, directory.number);
      else this.writeLeaf(node);
    }
    const { block, offset } = this.directoryTable.position;
    const { length, indexes } = this.writeListing(directory.entries);
    // It counts 3 bytes for `.` and `..`, which are not stored.
    const size = length + 3;
    const links = 2 + directory.entries.filter(({ node }) => node.kind === 'directory').length;
    const xattrs = this.xattrs.add(directory.xattrs);
    const table = this.inodeTable;
    if (size <= 0xffff && indexes.length === 0 && xattrs === NOTHING) {
      this.beginInode(directory, false).u32(block).u32(links).u16(size).u16(offset).u32(parent);
      return;
    }
    this.beginInode(directory, true).u32(links).u32(size).u32(block).u32(parent);
    table.u16(indexes.length).u16(offset).u32(xattrs);
    for (const { byte, block: start, name } of indexes)
      table
        .u32(byte)
        .u32(start)
        .u32(name.length - 1)
        .latin1(name);
  }

  private writeLeaf(node: Exclude<TreeNode, TreeDirectory>): void {
    const xattrs = this.xattrs.add(node.xattrs);
    if (node.kind === 'file') return this.writeFile(node, xattrs);
    const table = this.beginInode(node, xattrs !== NOTHING).u32(this.linksOf(node));
    if (node.kind === 'symlink') table.u32(node.target.length).write(node.target);
    else if ('device' in node) table.u32(node.device);
    if (xattrs !== NOTHING) table.u32(xattrs);
  }

  private writeFile(node: TreeFile, xattrs: number): void {
    const { start, size, sparse, blocks, fragment } = this.contentOf(node);
    const links = this.linksOf(node);
    const [index, offset] = fragment ? [fragment.index, fragment.offset] : [NOTHING, 0];
    const isSmall = start <= 0xffff_ffff && size <= 0xffff_ffff;
    if (isSmall && sparse === 0 && links === 1 && xattrs === NOTHING)
      this.beginInode(node, false).u32(start).u32(index).u32(offset).u32(size).write(blocks);
    else
      this.beginInode(node, true)
        .u64(start)
        .u64(size)
        .u64(sparse)
        .u32(links)
        .u32(index)
        .u32(offset)
        .u32(xattrs)
        .write(blocks);
  }

  /** Writes what all inodes begin with. */
  private beginInode(node: TreeNode, isExtended: boolean): MetadataWriter {
    this.places.set(node.number, this.inodeTable.position);
    return this.inodeTable
      .u16(INODE_KINDS.indexOf(node.kind) + 1 + (isExtended ? EXTENDED : 0))
      .u16(node.mode)
      .u16(this.id(node.uid))
      .u16(this.id(node.gid))
      .u32(node.mtime)
      .u32(node.number);
  }

  private id(id: number): number {
    const LIMIT = 65_535;
    const known = this.ids.get(id);
    if (known !== undefined) return known;
    if (this.ids.size === LIMIT) throw new SquashfsLimit(`more than ${LIMIT} different owners and groups`);
    this.ids.set(id, this.ids.size);
    return this.ids.size - 1;
  }

  /** Writes the names of a directory, in runs whose inodes are near each other (squashfs.rst, section 3.4). */
  private writeListing(entries: TreeEntry[]): { length: number; indexes: DirectoryIndex[] } {
    const before = this.directoryTable.length;
    const indexes: DirectoryIndex[] = [];
    let indexed = 0;
    for (let first = 0; first < entries.length;) {
      const start = this.directoryTable.length - before;
      const count = this.runLength(entries, first, indexed + METADATA_SIZE - start);
      if (count === 0) {
        // What was indexed last is a block of metadata away: whoever looks for a name begins here.
        indexes.push({ byte: start, block: this.directoryTable.blockOf(before + start), name: entries[first]!.name });
        indexed = start;
        continue;
      }
      this.writeRun(entries, first, count);
      first += count;
    }
    return { length: this.directoryTable.length - before, indexes };
  }

  /** How many entries can stand below one header: at most 256, of one block of inodes, in at most `room` bytes. */
  private runLength(entries: TreeEntry[], first: number, room: number): number {
    const base = entries[first]!.node.number;
    const end = Math.min(first + LISTING_RUN, entries.length);
    let length = LISTING_HEADER;
    for (let index = first; index < end; index++) {
      const { name, node } = entries[index]!;
      const delta = node.number - base;
      length += LISTING_ENTRY + name.length;
      const isNear = this.places.block(node.number) === this.places.block(base) && delta === (delta << 16) >> 16;
      if (!isNear || length > room) return index - first;
    }
    return end - first;
  }

  private writeRun(entries: TreeEntry[], first: number, count: number): void {
    const base = entries[first]!.node.number;
    const table = this.directoryTable;
    table
      .u32(count - 1)
      .u32(this.places.block(base))
      .u32(base);
    for (let index = first; index < first + count; index++) {
      const { name, node } = entries[index]!;
      table.u16(this.places.offset(node.number)).u16((node.number - base) & 0xffff);
      table
        .u16(INODE_KINDS.indexOf(node.kind) + 1)
        .u16(name.length - 1)
        .latin1(name);
    }
  }
}

/** Where a name stands in the listing of a large directory. */
interface DirectoryIndex {
  /** Bytes from the start of the listing. */
  byte: number;
  /** Start of the block of metadata that holds that byte. */
  block: number;
  name: string;
}
