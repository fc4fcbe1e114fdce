import { BadArchive } from './bad-archive.js';
import { ByteReader, cutOff } from './byte-reader.js';
import { countOf, pairs, PaxHeader, parsePax, type PaxRecords } from './pax-records.js';
import { BLOCK, type Extent, extentsAt, parseHeader, type RawHeader, untilNul } from './tar-header.js';

export type TarKind = 'file' | 'directory' | 'symlink' | 'link' | 'character device' | 'block device' | 'fifo';

/** What an archive says of one of its files. Texts are a byte per character (latin1), since names of files need not be UTF-8. */
export interface TarHeader {
  name: string;
  kind: TarKind;
  mode: number;
  uid: number;
  gid: number;
  /** Nanoseconds since 1970. */
  mtime: bigint;
  /** Target of a link; empty for others. */
  linkname: string;
  /** Bytes of the file, holes included; 0 for all that is no file. */
  size: number;
  /** Number of a device. */
  major: number;
  minor: number;
  xattrs: { name: string; value: Buffer }[];
}

/** Bytes of a file, and where in it they stand. */
export interface Piece {
  position: number;
  bytes: Buffer;
}

export interface TarEntry extends TarHeader {
  /** Bytes that the archive holds of the content: all but holes. */
  stored: number;
  /** The content, once: what is not taken before the next entry is skipped. */
  content(): AsyncGenerator<Piece, void, void>;
}

/** Most bytes of an extended header, a long name, or the map of a sparse file. */
const EXTRA_LIMIT = 4 * 1024 * 1024;
const EXTENT_LIMIT = 262_144;

const KINDS: Record<string, TarKind> = {
  '0': 'file',
  '1': 'link',
  '2': 'symlink',
  '3': 'character device',
  '4': 'block device',
  '5': 'directory',
  '6': 'fifo',
  '7': 'file',
  S: 'file',
};

/** What stands in front of a header, and adds to it. */
interface Extras {
  pax: PaxRecords;
  name: string | null;
  linkname: string | null;
}

/**
 * Reads a tar archive of any current tool: the formats of POSIX (ustar and pax) and of GNU, with long names, large numbers, extended
 * attributes and sparse files (GNU tar, "Storing Sparse Files": the old format, and 0.0, 0.1 and 1.0). An archive that is damaged ends in
 * BadArchive; nothing that it says is believed without a limit.
 */
export function readTar(source: AsyncIterable<Buffer>): AsyncGenerator<TarEntry, void, void> {
  return new TarReader(new ByteReader(source)).entries();
}

class TarReader {
  private globals: PaxRecords = [];
  /** Bytes of the current entry that were not taken yet, and those behind that fill up its last block. */
  private left = 0;
  private padding = 0;

  constructor(private readonly bytes: ByteReader) {}

  async *entries(): AsyncGenerator<TarEntry, void, void> {
    let extras: Extras = { pax: [], name: null, linkname: null };
    for (let header = await this.nextHeader(); header; header = await this.nextHeader()) {
      if (await this.readExtra(header, extras)) continue;
      yield await this.entry(header, extras);
      await this.skip();
      extras = { pax: [], name: null, linkname: null };
    }
    // What decompresses the archive tells only at its end whether all was well.
    for await (const _ of this.bytes.pieces(Number.MAX_SAFE_INTEGER));
  }

  /** Null at the end of the archive. */
  private async nextHeader(): Promise<RawHeader | null> {
    const block = await this.bytes.take(BLOCK);
    if (!block) throw cutOff();
    const header = parseHeader(block);
    if (!header) return null;
    // A link has no content, whatever its header says of that of its target.
    this.left = header.type === '1' ? 0 : header.size;
    this.padding = -this.left & (BLOCK - 1);
    return header;
  }

  /** Takes what only adds to the next header; false for anything else. */
  private async readExtra({ type, size }: RawHeader, extras: Extras): Promise<boolean> {
    if (!'xgLKV'.includes(type)) return false;
    if (size > EXTRA_LIMIT) throw new BadArchive('is damaged: an extended header of it is larger than any sane one');
    const content = await this.takeAll();
    if (type === 'x') extras.pax = parsePax(content);
    if (type === 'g') this.globals = [...this.globals, ...parsePax(content)].slice(-EXTENT_LIMIT);
    if (type === 'L') extras.name = untilNul(content.toString('latin1'));
    if (type === 'K') extras.linkname = untilNul(content.toString('latin1'));
    return true;
  }

  private async entry(raw: RawHeader, extras: Extras): Promise<TarEntry> {
    const pax = new PaxHeader([...this.globals, ...extras.pax]);
    const stated = pax.count('size');
    if (stated !== null && raw.type !== '1') {
      this.left = stated;
      this.padding = -stated & (BLOCK - 1);
    }
    const name = pax.text('GNU.sparse.name') ?? pax.text('path') ?? extras.name ?? raw.name;
    const kind = kindOf(raw.type, name);
    const { extents, size } = await this.layout(raw, pax);
    return {
      name,
      kind,
      mode: raw.mode & 0o7777,
      uid: pax.count('uid') ?? raw.uid,
      gid: pax.count('gid') ?? raw.gid,
      mtime: pax.time('mtime') ?? BigInt(raw.mtime) * 1_000_000_000n,
      linkname: pax.text('linkpath') ?? extras.linkname ?? raw.linkname,
      size: kind === 'file' ? size : 0,
      major: raw.major,
      minor: raw.minor,
      xattrs: pax.xattrs,
      stored: this.left,
      content: () => this.content(extents),
    };
  }

  /** Where in the file the bytes belong that follow; a file without holes is one extent. */
  private async layout(raw: RawHeader, pax: PaxHeader): Promise<{ extents: Extent[]; size: number }> {
    const found = await this.sparseLayout(raw, pax);
    if (!found) return { extents: [{ position: 0, length: this.left }], size: this.left };
    let end = 0;
    for (const { position, length } of found.extents) {
      if (position < end || position + length > found.size)
        throw new BadArchive('is damaged: the map of a sparse file is broken');
      end = position + length;
    }
    if (found.extents.reduce((sum, { length }) => sum + length, 0) !== this.left)
      throw new BadArchive('is damaged: a sparse file of it has another length than its map');
    return found;
  }

  private async sparseLayout(raw: RawHeader, pax: PaxHeader): Promise<{ extents: Extent[]; size: number } | null> {
    if (raw.sparse) return { extents: await this.oldExtents(raw.sparse), size: raw.sparse.size };
    const size = pax.count('GNU.sparse.realsize') ?? pax.count('GNU.sparse.size');
    if (size === null) return null;
    if (pax.text('GNU.sparse.major') === '1') return { extents: await this.mapInFront(), size };
    return { extents: pax.extents ?? [], size };
  }

  /** Of the old format: what the header had no room for follows in blocks of its own. */
  private async oldExtents(first: NonNullable<RawHeader['sparse']>): Promise<Extent[]> {
    const extents = [...first.extents];
    for (let { goesOn } = first; goesOn;) {
      const block = await this.bytes.take(BLOCK);
      if (!block) throw cutOff();
      const more = extentsAt(block, 0, 21);
      extents.push(...more.extents);
      refuseExtents(extents.length);
      goesOn = more.goesOn;
    }
    return extents;
  }

  /** Of the format 1.0: the content begins with the map, a number a line, the first of them how many extents there are. */
  private async mapInFront(): Promise<Extent[]> {
    const lines = new Lines();
    // No number is longer than a block: without an end of a line in it, this is no number.
    lines.add(await this.takeSome(BLOCK));
    const extents = countOf(lines.first);
    refuseExtents(extents);
    while (lines.count < 2 * extents + 1) {
      if (lines.length > EXTRA_LIMIT) refuseExtents(EXTENT_LIMIT + 1);
      lines.add(await this.takeSome(BLOCK));
    }
    return pairs(lines.all.slice(1, 2 * extents + 1).map(countOf));
  }

  private async *content(extents: readonly Extent[]): AsyncGenerator<Piece, void, void> {
    for (const { position, length } of extents) {
      let at = position;
      for await (const bytes of this.bytes.pieces(length)) {
        this.left -= bytes.length;
        yield { position: at, bytes };
        at += bytes.length;
      }
      if (at < position + length) throw cutOff();
    }
  }

  private async takeAll(): Promise<Buffer> {
    const content = await this.takeSome(this.left);
    await this.skip();
    return content;
  }

  private async takeSome(length: number): Promise<Buffer> {
    if (length > this.left) throw cutOff();
    const content = await this.bytes.take(length);
    if (!content) throw cutOff();
    this.left -= length;
    return content;
  }

  /** Goes behind the content. */
  private async skip(): Promise<void> {
    let missing = this.left + this.padding;
    for await (const piece of this.bytes.pieces(missing)) missing -= piece.length;
    if (missing > 0) throw cutOff();
    this.left = 0;
    this.padding = 0;
  }
}

/** Lines of a text that comes in blocks. */
class Lines {
  private readonly parts: string[] = [];
  /** Lines that are whole. */
  count = 0;
  /** Characters. */
  length = 0;

  add(block: Buffer): void {
    const text = block.toString('latin1');
    this.parts.push(text);
    this.length += text.length;
    this.count += text.split('\n').length - 1;
  }

  get all(): string[] {
    return this.parts.join('').split('\n');
  }

  get first(): string {
    return this.all[0]!;
  }
}

function kindOf(type: string, name: string): TarKind {
  const kind = KINDS[type];
  if (!kind)
    throw new BadArchive(
      `holds ${JSON.stringify(name.slice(0, 200))}, which is of the unknown type ${JSON.stringify(type)}`,
    );
  // Tools older than POSIX say so that something is a directory.
  return type === '0' && name.endsWith('/') ? 'directory' : kind;
}

function refuseExtents(count: number): void {
  if (count > EXTENT_LIMIT) throw new BadArchive('holds a sparse file that is in more pieces than any sane one');
}
