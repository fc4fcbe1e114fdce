import { BadArchive } from './bad-archive.js';

/** Bytes of a header, and of what contents are padded to. */
export const BLOCK = 512;

/** A stretch of a file that an archive holds; what is between two of them is zeros. */
export interface Extent {
  /** Bytes from the start of the file. */
  position: number;
  length: number;
}

/** A header of a tar archive, as its 512 bytes say it. Texts are a byte per character (latin1), since names of files need not be UTF-8. */
export interface RawHeader {
  name: string;
  linkname: string;
  /** The character that tells the kind. */
  type: string;
  mode: number;
  uid: number;
  gid: number;
  /** Bytes that follow in the archive. */
  size: number;
  /** Seconds since 1970. */
  mtime: number;
  major: number;
  minor: number;
  /** Of the old sparse format of GNU tar: the first extents, whether more of them follow, and the length of the file; null otherwise. */
  sparse: { extents: Extent[]; goesOn: boolean; size: number } | null;
}

/**
 * Reads a header (POSIX.1-2017, pax, "ustar Interchange Format"; GNU tar, "Basic Tar Format"; V7). Null for a block of zeros, of which two end an
 * archive.
 * @throws BadArchive
 */
export function parseHeader(block: Buffer): RawHeader | null {
  if (isZero(block)) return null;
  if (!hasItsSum(block)) throw new BadArchive('is damaged: a header of it has a wrong checksum');
  const type = String.fromCharCode(block[156]!);
  const name = nameOf(block);
  return {
    name,
    linkname: textAt(block, 157, 100),
    type: isPlain(type) ? (name.endsWith('/') ? '5' : '0') : type,
    mode: numberAt(block, 100, 8),
    uid: numberAt(block, 108, 8),
    gid: numberAt(block, 116, 8),
    size: sizeAt(block, 124),
    mtime: numberAt(block, 136, 12),
    major: numberAt(block, 329, 8),
    minor: numberAt(block, 337, 8),
    sparse: type === 'S' ? { ...extentsAt(block, 386, 4), size: sizeAt(block, 483) } : null,
  };
}

/** Whether a tar archive may begin with this. The oldest format (V7) has no other mark than the sum of its bytes. */
export function isHeader(start: Buffer): boolean {
  return start.length === BLOCK && !isZero(start) && hasItsSum(start);
}

function isZero(block: Buffer): boolean {
  return block.every((byte) => byte === 0);
}

/** Old programs added up bytes with a sign. */
function hasItsSum(block: Buffer): boolean {
  const sum = octal(block.subarray(148, 156));
  return sum === checksum(block, (byte) => byte) || sum === checksum(block, (byte) => (byte << 24) >> 24);
}

/** A file, or in the oldest format a directory, whose name ends in a slash. */
function isPlain(type: string): boolean {
  return type === '\0' || type === '0';
}

/** Extents of the old sparse format, and whether a block with more of them follows. An extension block has 21, from its start. */
export function extentsAt(block: Buffer, start: number, count: number): { extents: Extent[]; goesOn: boolean } {
  const SIZE = 24;
  const all = Array.from({ length: count }, (_, index) => ({
    position: sizeAt(block, start + index * SIZE),
    length: sizeAt(block, start + index * SIZE + 12),
  }));
  // Slots that are not used are empty; an extent of no bytes tells where the file ends.
  return { extents: all.filter(({ length }) => length > 0), goesOn: block[start + count * SIZE] !== 0 };
}

function nameOf(block: Buffer): string {
  const name = textAt(block, 0, 100);
  const isPosix = block.toString('latin1', 257, 263) === 'ustar\0';
  const prefix = isPosix ? textAt(block, 345, 155) : '';
  return prefix ? `${prefix}/${name}` : name;
}

function textAt(block: Buffer, start: number, length: number): string {
  return untilNul(block.toString('latin1', start, start + length));
}

export function untilNul(text: string): string {
  const end = text.indexOf('\0');
  return end < 0 ? text : text.slice(0, end);
}

/** @throws BadArchive for what is no number of bytes */
function sizeAt(block: Buffer, start: number): number {
  const size = numberAt(block, start, 12);
  if (size < 0) throw new BadArchive('is damaged: a header of it has a size below zero');
  return size;
}

/**
 * A number: octal digits, or with the highest bit set the bytes of a number themselves, as GNU tar writes large and negative ones.
 * @throws BadArchive
 */
function numberAt(block: Buffer, start: number, length: number): number {
  const field = block.subarray(start, start + length);
  const first = field[0]!;
  const value = first & 0x80 ? binary(field) : octal(field);
  if (!Number.isSafeInteger(value)) throw new BadArchive('is damaged: a number in a header of it is impossible');
  return value;
}

function octal(field: Buffer): number {
  const text = untilNul(field.toString('latin1')).trim();
  return /^[0-7]*$/.test(text) ? Number.parseInt(text || '0', 8) : Number.NaN;
}

function binary(field: Buffer): number {
  const bytes = Buffer.from(field);
  // The highest bit only tells the form; below it, the number has a sign.
  const isNegative = bytes[0] === 0xff;
  if (!isNegative) bytes[0]! &= 0x7f;
  const value = BigInt(`0x${bytes.toString('hex')}`);
  return Number(isNegative ? value - (1n << BigInt(8 * bytes.length)) : value);
}

/** The sum of a header's bytes, with spaces in place of the sum itself. */
function checksum(block: Buffer, value: (byte: number) => number): number {
  let sum = 8 * 32;
  for (let at = 0; at < BLOCK; at++) if (at < 148 || at >= 156) sum += value(block[at]!);
  return sum;
}
