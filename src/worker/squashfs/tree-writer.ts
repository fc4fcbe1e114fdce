import type { Codec } from './codec.js';
import { EXTENDED, INODE_KINDS, NOTHING, type StoredContent } from './inode.js';
import { METADATA_SIZE } from './metadata-reader.js';
import { encodeIndexedTable, MetadataWriter } from './metadata-writer.js';
import { encodeReference, type MetadataReference } from './superblock.js';
import type { TreeDirectory, TreeEntry, TreeFile, TreeNode } from './tree.js';
import { type Xattr, XATTR_ENTRY_SIZE, XATTR_PREFIXES } from './xattrs.js';

/** The image would have more of something than the format can count; the message says of what. */
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

/** Facts of a node that only the whole tree tells. */
interface Numbered {
  number: number;
  /** Names that lead to it. */
  links: number;
  reference: MetadataReference | null;
}

class TreeWriter {
  private readonly inodeTable: MetadataWriter;
  private readonly directoryTable: MetadataWriter;
  private readonly ids = new Map<number, number>();
  private readonly xattrs: XattrWriter;
  private readonly nodes = new Map<TreeNode, Numbered>();
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
    // The parent of the root is a number that no inode has.
    this.root = this.writeDirectory(root, this.nodes.size + 1);
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
      exportTable: addIndexed(this.exportEntries()),
      idTable: addIndexed(Buffer.from(Uint32Array.from(this.ids.keys()).buffer)),
      xattrTable: this.xattrs.finish(add, () => position),
    };
    const counts = { inodes: this.nodes.size, ids: this.ids.size, root: this.root };
    return { ...tables, ...counts, bytes: Buffer.concat(parts) };
  }

  /** Numbers nodes directory by directory, so that the numbers in a directory are close to each other. */
  private number(entries: TreeEntry[]): void {
    for (const { node } of entries) {
      const known = this.nodes.get(node);
      if (known) known.links++;
      else this.nodes.set(node, { number: this.nodes.size + 1, links: 1, reference: null });
    }
    for (const { node } of entries) if (node.kind === 'directory') this.number(node.entries);
  }

  /** Writes what a directory holds, then its listing, then itself: each refers to what was written before. */
  private writeDirectory(directory: TreeDirectory, parent: number): MetadataReference {
    const { number } = this.nodes.get(directory)!;
    for (const { node } of directory.entries) {
      const facts = this.nodes.get(node)!;
      facts.reference ??= node.kind === 'directory' ? this.writeDirectory(node, number) : this.writeLeaf(node, facts);
    }
    const start = this.directoryTable.position;
    const { length, indexes } = this.writeListing(directory.entries);
    const links = 2 + directory.entries.filter(({ node }) => node.kind === 'directory').length;
    return this.writeInode(directory, directoryBody({ links, length, start, parent, indexes }));
  }

  private writeLeaf(node: Exclude<TreeNode, TreeDirectory>, { links }: Numbered): MetadataReference {
    if (node.kind === 'file') return this.writeInode(node, fileBody(this.contentOf(node), links));
    const rest = node.kind === 'symlink' ? symlinkTarget(node.target) : 'device' in node ? u32s(node.device) : u32s();
    const body = Buffer.concat([u32s(links), rest]);
    return this.writeInode(node, {
      basic: body,
      extended: (xattrs) => Buffer.concat([body, u32s(xattrs)]),
    });
  }

  private writeInode(node: TreeNode, body: InodeBody): MetadataReference {
    const facts = this.nodes.get(node)!;
    const xattrs = this.xattrs.add(node.xattrs);
    const isExtended = body.basic === null || xattrs !== NOTHING;
    const header = Buffer.alloc(16);
    const type = INODE_KINDS.indexOf(node.kind) + 1 + (isExtended ? EXTENDED : 0);
    const shorts = [type, node.mode, this.id(node.uid), this.id(node.gid)];
    shorts.forEach((value, index) => header.writeUInt16LE(value, index * 2));
    header.writeUInt32LE(node.mtime, 8);
    header.writeUInt32LE(facts.number, 12);
    facts.reference = this.inodeTable.position;
    this.inodeTable.write(header);
    this.inodeTable.write(isExtended ? body.extended(xattrs) : body.basic!);
    return facts.reference;
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
      const run = this.nextRun(entries, first, indexed + METADATA_SIZE - start);
      if (run.count === 0) {
        // What was indexed last is a block of metadata away: whoever looks for a name begins here.
        indexes.push({ byte: start, block: this.directoryTable.blockOf(before + start), name: entries[first]!.name });
        indexed = start;
        continue;
      }
      this.directoryTable.write(run.bytes);
      first += run.count;
    }
    return { length: this.directoryTable.length - before, indexes };
  }

  /** A header and the entries below it: at most 256, of one block of inodes, in at most `room` bytes. */
  private nextRun(entries: TreeEntry[], first: number, room: number): { count: number; bytes: Buffer } {
    const HEADER_SIZE = 12;
    const HEADER_ENTRIES = 256;
    const base = this.nodes.get(entries[first]!.node)!;
    const parts: Buffer[] = [Buffer.alloc(HEADER_SIZE)];
    let length = HEADER_SIZE;
    for (const { name, node } of entries.slice(first, first + HEADER_ENTRIES)) {
      const { number, reference } = this.nodes.get(node)!;
      const delta = number - base.number;
      if (reference!.block !== base.reference!.block || delta !== (delta << 16) >> 16) break;
      const entry = directoryEntry(reference!.offset, delta, INODE_KINDS.indexOf(node.kind) + 1, name);
      if (length + entry.length > room) break;
      length += entry.length;
      parts.push(entry);
    }
    const count = parts.length - 1;
    if (count > 0) u32s(count - 1, base.reference!.block, base.number).copy(parts[0]!);
    return { count, bytes: Buffer.concat(parts) };
  }

  private exportEntries(): Buffer {
    const entries = new BigUint64Array(this.nodes.size);
    for (const { number, reference } of this.nodes.values()) entries[number - 1] = encodeReference(reference!);
    return Buffer.from(entries.buffer);
  }
}

/** What follows the header of an inode. */
interface InodeBody {
  /** Null where the fields of the short form are too small. */
  basic: Buffer | null;
  extended(xattrs: number): Buffer;
}

/** Where a name stands in the listing of a large directory. */
interface DirectoryIndex {
  /** Bytes from the start of the listing. */
  byte: number;
  /** Start of the block of metadata that holds that byte. */
  block: number;
  name: string;
}

function directoryBody(directory: {
  links: number;
  length: number;
  start: MetadataReference;
  parent: number;
  indexes: DirectoryIndex[];
}): InodeBody {
  const { links, length, start, parent, indexes } = directory;
  const size = length + 3;
  return {
    basic:
      size > 0xffff || indexes.length > 0
        ? null
        : Buffer.concat([u32s(start.block, links), u16s(size, start.offset), u32s(parent)]),
    extended: (xattrs) =>
      Buffer.concat([
        u32s(links, size, start.block, parent),
        u16s(indexes.length, start.offset),
        u32s(xattrs),
        ...indexes.flatMap(({ byte, block, name }) => [
          u32s(byte, block, name.length - 1),
          Buffer.from(name, 'latin1'),
        ]),
      ]),
  };
}

function fileBody({ start, size, sparse, blocks, fragment }: StoredContent, links: number): InodeBody {
  const [index, offset] = fragment ? [fragment.index, fragment.offset] : [NOTHING, 0];
  const isSmall = start <= 0xffff_ffff && size <= 0xffff_ffff && sparse === 0 && links === 1;
  return {
    basic: isSmall ? Buffer.concat([u32s(start, index, offset, size), blocks]) : null,
    extended: (xattrs) => Buffer.concat([u64s(start, size, sparse), u32s(links, index, offset, xattrs), blocks]),
  };
}

function symlinkTarget(target: Buffer): Buffer {
  return Buffer.concat([u32s(target.length), target]);
}

function directoryEntry(offset: number, delta: number, type: number, name: string): Buffer {
  const entry = Buffer.alloc(8 + name.length);
  entry.writeUInt16LE(offset, 0);
  entry.writeInt16LE(delta, 2);
  entry.writeUInt16LE(type, 4);
  entry.writeUInt16LE(name.length - 1, 6);
  entry.write(name, 8, 'latin1');
  return entry;
}

/** Sets of extended attributes, each once. */
class XattrWriter {
  private readonly pairs: MetadataWriter;
  private readonly numbers = new Map<string, number>();
  private readonly entries: Buffer[] = [];

  constructor(private readonly codec: Codec) {
    this.pairs = new MetadataWriter(codec);
  }

  /** The number of a set. */
  add(set: readonly Xattr[]): number {
    if (set.length === 0) return NOTHING;
    const bytes = Buffer.concat(set.map(encodePair));
    const key = bytes.toString('latin1');
    const known = this.numbers.get(key);
    if (known !== undefined) return known;
    const reference = u64s(encodeReference(this.pairs.position));
    this.entries.push(Buffer.concat([reference, u32s(set.length, bytes.length)]));
    this.pairs.write(bytes);
    this.numbers.set(key, this.entries.length - 1);
    return this.entries.length - 1;
  }

  /** Adds the table to the others. Returns the position of its header, or null where there is no set. */
  finish(add: (bytes: Buffer) => number, position: () => number): number | null {
    if (this.entries.length === 0) return null;
    const start = add(this.pairs.finish());
    const content = Buffer.concat(this.entries, this.entries.length * XATTR_ENTRY_SIZE);
    const { bytes, index } = encodeIndexedTable(this.codec, content, position());
    const blocks = index - position();
    add(bytes.subarray(0, blocks));
    const header = add(Buffer.concat([u64s(start), u32s(this.entries.length, 0)]));
    add(bytes.subarray(blocks));
    return header;
  }
}

function encodePair({ name, value }: Xattr): Buffer {
  const prefix = XATTR_PREFIXES.findIndex((candidate) => name.startsWith(candidate));
  const rest = Buffer.from(name.slice(XATTR_PREFIXES[prefix]!.length), 'latin1');
  return Buffer.concat([u16s(prefix, rest.length), rest, u32s(value.length), value]);
}

function u16s(...values: number[]): Buffer {
  return Buffer.from(Uint16Array.from(values).buffer);
}

function u32s(...values: number[]): Buffer {
  return Buffer.from(Uint32Array.from(values).buffer);
}

function u64s(...values: (number | bigint)[]): Buffer {
  return Buffer.from(BigUint64Array.from(values.map(BigInt)).buffer);
}
