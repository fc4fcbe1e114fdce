import { promisify } from 'node:util';
import { read } from 'node:fs';
import { BadSquashfs } from './bad-squashfs.js';
import type { Codec } from './codec.js';
import { dataStartOf } from './compressor-options.js';
import { FieldReader } from './field-reader.js';
import { ImageFile } from './image-file.js';
import {
  blockLength,
  type DirectoryInode,
  type FileInode,
  type Inode,
  INODE_KINDS,
  type InodeContext,
  type InodeKind,
  isCompressed,
  readInode,
  SMALLEST_INODE,
  type StoredBlock,
} from './inode.js';
import { InodeIndex } from './inode-index.js';
import { loadCodec } from './load-codec.js';
import { MetadataReader, type MetadataTable } from './metadata-reader.js';
import { FLAG, type MetadataReference, parseSuperblock, type Superblock, SUPERBLOCK_SIZE } from './superblock.js';
import { type Xattr, XattrTable } from './xattrs.js';

const readAsync = promisify(read);

/** A block that holds the ends of several files. */
export interface Fragment {
  start: number;
  /** As `blockLength` takes it. */
  word: number;
}

/** What a directory says of one of its names. */
export interface DirectoryEntry {
  /** A byte per character (latin1), since names of files need not be UTF-8. */
  name: string;
  kind: InodeKind;
  inode: MetadataReference;
}

const FRAGMENT_ENTRY_SIZE = 16;
const ID_SIZE = 4;
const EXPORT_ENTRY_SIZE = 8;
const XATTR_HEADER_SIZE = 16;
/** Most entries below one header of a listing. */
const HEADER_ENTRIES = 256;

/**
 * A SquashFS 4.0 image, read without mounting it. Layout: Linux, Documentation/filesystems/squashfs.rst, and the squashfs binary format
 * document of the squashfs-tools-ng project. All metadata is held in memory; data blocks are read when they are asked for. Whatever the
 * image says is checked before it is used: a damaged or hostile one ends in BadSquashfs.
 */
export class SquashfsImage {
  private known: InodeIndex | null = null;

  private constructor(
    private readonly reader: ImageFile,
    readonly superblock: Superblock,
    readonly codec: Codec,
    /** Options of the compression, as the image gives them; empty for none. */
    readonly compressorOptions: Buffer,
    private readonly fragmentTable: Buffer,
    private readonly xattrTable: XattrTable,
    private readonly context: InodeContext,
    private readonly inodeTable: MetadataTable,
    private readonly directoryTable: MetadataTable,
  ) {}

  /**
   * Opens an image and reads its tables. The caller closes it.
   * @param level with which its codec compresses; null for the default
   * @throws NotSquashfs, BadSquashfs, CodecMissing
   */
  static open(path: string, level: number | null = null): SquashfsImage {
    const file = ImageFile.open(path);
    try {
      return SquashfsImage.read(file, level);
    } catch (error) {
      file.close();
      throw error;
    }
  }

  private static read(file: ImageFile, level: number | null): SquashfsImage {
    const superblock = parseSuperblock(file.read(0, Math.min(file.size, SUPERBLOCK_SIZE)), file.size);
    const imageOptions = readCompressorOptions(file, superblock);
    const codec = loadCodec(superblock.compression, { level, blockSize: superblock.blockSize, imageOptions });
    const metadata = new MetadataReader(file, codec, superblock.size);
    const { ids, fragments, xattrs, first } = readTables(file, superblock, metadata);
    const { inodeTable, directoryTable, blockSize } = superblock;
    if (inodeTable >= directoryTable || directoryTable > first)
      throw new BadSquashfs('its tables are in an impossible order');
    return new SquashfsImage(
      file,
      superblock,
      codec,
      imageOptions,
      fragments,
      xattrs,
      { blockSize, ids },
      metadata.table(inodeTable, directoryTable, 'inode'),
      metadata.table(directoryTable, first, 'directory'),
    );
  }

  close(): void {
    this.reader.close();
  }

  /** Position of the first byte of data. */
  get dataStart(): number {
    return dataStartOf(this.compressorOptions);
  }

  /** @throws BadSquashfs */
  root(): DirectoryInode {
    const inode = this.inode(this.superblock.root);
    if (inode.kind !== 'directory') throw new BadSquashfs('its root is not a directory');
    return inode;
  }

  /** @throws BadSquashfs */
  inode(reference: MetadataReference): Inode {
    return this.inodeAt(this.inodeTable.resolve(reference)).inode;
  }

  /**
   * The inode with this number; null where the image has none.
   * @throws BadSquashfs
   */
  inodeByNumber(number: number): Inode | null {
    const position = this.index.positionOf(number);
    return position === null ? null : this.inodeAt(position).inode;
  }

  /**
   * The file whose inode has this number.
   * @throws BadSquashfs where there is none
   */
  file(number: number): FileInode {
    const inode = this.inodeByNumber(number);
    if (inode?.kind !== 'file') throw new BadSquashfs(`two inodes have the number ${number}, or none`);
    return inode;
  }

  /**
   * What can be told of inodes without reading them again.
   * @throws BadSquashfs
   */
  get index(): InodeIndex {
    this.known ??= this.makeIndex();
    return this.known;
  }

  /**
   * All inodes, in the order of the table.
   * @throws BadSquashfs
   */
  *inodes(): Generator<Inode, void, void> {
    for (const { inode } of this.placedInodes()) yield inode;
  }

  private *placedInodes(): Generator<{ inode: Inode; position: number }, void, void> {
    this.refuseCount();
    for (let count = 0, position = 0; count < this.superblock.inodes; count++) {
      const { inode, next } = this.inodeAt(position);
      yield { inode, position };
      position = next;
    }
  }

  private makeIndex(): InodeIndex {
    this.refuseCount();
    const index = new InodeIndex(this.superblock);
    for (const { inode, position } of this.placedInodes()) index.add(inode, position);
    return index;
  }

  private refuseCount(): void {
    if (this.superblock.inodes * SMALLEST_INODE > this.inodeTable.content.length)
      throw new BadSquashfs('it has fewer inodes than it says');
  }

  /**
   * What is in a directory, sorted by the bytes of names.
   * @throws BadSquashfs
   */
  list({ listing, length }: DirectoryInode): DirectoryEntry[] {
    if (length === 0) return [];
    const start = this.directoryTable.resolve(listing);
    const fields = new FieldReader(this.directoryTable.content.subarray(0, start + length), start, 'directory table');
    const entries: DirectoryEntry[] = [];
    while (fields.position < start + length) readHeader(fields, entries);
    return entries;
  }

  /** Bytes of all listings together; no walk reads more. */
  get listingBytes(): number {
    return this.directoryTable.content.length;
  }

  /** @throws BadSquashfs */
  xattrs({ xattrs }: Inode): readonly Xattr[] {
    return this.xattrTable.get(xattrs);
  }

  /**
   * Reads a data block or a block of fragments and unpacks it.
   * @param word its stored size; not that of a hole
   * @throws BadSquashfs
   */
  async block(position: number, word: number): Promise<Buffer> {
    const { blockSize } = this.superblock;
    const stored = await this.stored(position, word);
    return isCompressed(word) ? this.codec.decompressInBackground(stored, blockSize) : stored;
  }

  /**
   * A data block as it is stored, where it holds this content; null where it holds another.
   * @param word its stored size; not that of a hole
   * @throws BadSquashfs
   */
  async blockWith(content: Buffer, position: number, word: number): Promise<StoredBlock | null> {
    const stored = await this.stored(position, word);
    const { blockSize } = this.superblock;
    const unpacked = isCompressed(word) ? await this.codec.decompressInBackground(stored, blockSize) : stored;
    return unpacked.equals(content) ? { stored, word } : null;
  }

  /**
   * @throws BadSquashfs
   */
  fragment(index: number): Fragment {
    if (index >= this.superblock.fragments)
      throw new BadSquashfs('a file ends in a fragment that its fragment table lacks');
    const fields = new FieldReader(this.fragmentTable, index * FRAGMENT_ENTRY_SIZE, 'fragment table');
    return { start: fields.u64(), word: fields.u32() };
  }

  /**
   * Refuses what is not in the area of data blocks.
   * @throws BadSquashfs
   */
  checkData(start: number, length: number): void {
    if (start < this.dataStart || start + length > this.superblock.inodeTable)
      throw new BadSquashfs('a file has blocks outside of the area of data blocks');
  }

  private async stored(position: number, word: number): Promise<Buffer> {
    const length = blockLength(word);
    this.checkData(position, length);
    if (length === 0 || length > this.superblock.blockSize)
      throw new BadSquashfs('a data block has an impossible length');
    const buffer = Buffer.allocUnsafe(length);
    const { bytesRead } = await readAsync(this.reader.fd, buffer, 0, length, position);
    if (bytesRead !== length) throw new BadSquashfs('it became shorter while it was read');
    return buffer;
  }

  private inodeAt(position: number): { inode: Inode; next: number } {
    const fields = new FieldReader(this.inodeTable.content, position, 'inode table');
    const inode = readInode(fields, this.context);
    if (inode.number === 0 || inode.number > this.superblock.inodes)
      throw new BadSquashfs(`an inode has the number ${inode.number}, which it has not so many of`);
    return { inode, next: fields.position };
  }
}

/** The options of the compression follow the superblock, as a block of metadata that is never compressed. */
function readCompressorOptions(file: ImageFile, { flags }: Superblock): Buffer {
  const LIMIT = 64;
  if (!(flags & FLAG.compressorOptions)) return Buffer.alloc(0);
  const length = file.read(SUPERBLOCK_SIZE, 2).readUInt16LE(0) & 0x7fff;
  if (length === 0 || length > LIMIT) throw new BadSquashfs('the options of its compression have an impossible length');
  return file.read(SUPERBLOCK_SIZE + 2, length);
}

/** Reads the tables behind that of directories; `first` is where they begin. */
function readTables(file: ImageFile, superblock: Superblock, metadata: MetadataReader) {
  const { idTable, xattrTable, fragmentTable, exportTable } = superblock;
  const ids = metadata.indexed(idTable, superblock.ids, ID_SIZE, 'id');
  if (superblock.fragments > (fragmentTable === null ? 0 : superblock.inodes))
    throw new BadSquashfs('it has more fragments than files');
  const fragments =
    fragmentTable === null
      ? null
      : metadata.indexed(fragmentTable, superblock.fragments, FRAGMENT_ENTRY_SIZE, 'fragment');
  const xattrs =
    xattrTable === null ? null : XattrTable.read(metadata, xattrTable, file.read(xattrTable, XATTR_HEADER_SIZE));
  const exported =
    exportTable === null ? null : metadata.indexed(exportTable, superblock.inodes, EXPORT_ENTRY_SIZE, 'export');
  const starts = [ids, fragments, xattrs, exported].map((table) => table?.start ?? superblock.size);
  return {
    ids: Array.from({ length: superblock.ids }, (_, index) => ids.content.readUInt32LE(index * ID_SIZE)),
    fragments: fragments?.content ?? Buffer.alloc(0),
    xattrs: xattrs?.table ?? XattrTable.none,
    first: Math.min(...starts),
  };
}

/** Reads one header of a listing and the entries below it. */
function readHeader(fields: FieldReader, entries: DirectoryEntry[]): void {
  const count = fields.u32() + 1;
  const block = fields.u32();
  fields.u32();
  if (count > HEADER_ENTRIES) throw new BadSquashfs('a directory has an impossible number of entries');
  for (let index = 0; index < count; index++) {
    const offset = fields.u16();
    fields.i16();
    const type = fields.u16();
    const name = fields.slice(fields.u16() + 1).toString('latin1');
    const kind = INODE_KINDS[type - 1];
    if (!kind) throw new BadSquashfs(`a directory has an entry of the unknown type ${type}`);
    refuseName(name, entries.at(-1)?.name);
    entries.push({ name, kind, inode: { block, offset } });
  }
}

function refuseName(name: string, before: string | undefined): void {
  const NAME_LIMIT = 255;
  if (name.length > NAME_LIMIT || name === '.' || name === '..' || /[/\0]/.test(name))
    throw new BadSquashfs('a directory has an impossible name in it');
  if (before !== undefined && before >= name) throw new BadSquashfs('the names in a directory are not in order');
}
