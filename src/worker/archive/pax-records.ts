import { BadArchive } from './bad-archive.js';
import type { Extent } from './tar-header.js';

/** Records of an extended header, in their order. Keys are text, values are bytes. */
export type PaxRecords = readonly (readonly [key: string, value: Buffer])[];

/**
 * Reads the records of an extended header: `<length> <key>=<value>\n` each (POSIX.1-2017, pax, "pax Extended Header"). Values of extended
 * attributes may hold any byte.
 * @throws BadArchive
 */
export function parsePax(content: Buffer): PaxRecords {
  const records: [string, Buffer][] = [];
  for (let at = 0; at < content.length;) {
    const space = content.indexOf(0x20, at);
    const length = Number(content.toString('latin1', at, Math.max(space, at)));
    const end = at + length;
    const equals = content.indexOf(0x3d, space);
    if (space < 0 || !(length > 0) || end > content.length || equals < 0 || equals >= end || content[end - 1] !== 0x0a)
      throw new BadArchive('is damaged: an extended header of it is broken');
    records.push([content.toString('latin1', space + 1, equals), content.subarray(equals + 1, end - 1)]);
    at = end;
  }
  return records;
}

/** What records say; a later record of a key counts. */
export class PaxHeader {
  private readonly last: Map<string, Buffer>;

  /** @param records of global headers, then those of the entry */
  constructor(private readonly records: PaxRecords) {
    this.last = new Map(records);
  }

  /** A text of a byte per character; null where there is no such record, or an empty one, which takes back an earlier one. */
  text(key: string): string | null {
    const value = this.last.get(key);
    return value?.length ? value.toString('latin1') : null;
  }

  /**
   * A whole number from 0 on.
   * @throws BadArchive
   */
  count(key: string): number | null {
    const text = this.text(key);
    return text === null ? null : countOf(text);
  }

  /**
   * A time, nanoseconds since 1970.
   * @throws BadArchive
   */
  time(key: string): bigint | null {
    const text = this.text(key);
    if (text === null) return null;
    const [, sign, seconds, fraction] = /^(-?)(\d{1,15})(?:\.(\d*))?$/.exec(text) ?? refuseNumber(text);
    const value = BigInt(seconds!) * 1_000_000_000n + BigInt((fraction ?? '').padEnd(9, '0').slice(0, 9));
    return sign ? -value : value;
  }

  /** Extended attributes, as GNU tar and star write them. */
  get xattrs(): { name: string; value: Buffer }[] {
    const PREFIX = 'SCHILY.xattr.';
    const keys = [...this.last].filter(([key]) => key.startsWith(PREFIX));
    // GNU tar writes what would end a key otherwise.
    const decode = (name: string) => name.replaceAll('%3D', '=').replaceAll('%25', '%');
    return keys.map(([key, value]) => ({ name: decode(key.slice(PREFIX.length)), value }));
  }

  /**
   * The extents of a sparse file of the formats 0.0 and 0.1 of GNU tar; null where there are none.
   * @throws BadArchive
   */
  get extents(): Extent[] | null {
    const map = this.text('GNU.sparse.map');
    if (map !== null) return pairs(map.split(',').map(countOf));
    if (this.text('GNU.sparse.numblocks') === null) return null;
    const numbers = this.records.filter(([key]) => key === 'GNU.sparse.offset' || key === 'GNU.sparse.numbytes');
    return pairs(numbers.map(([, value]) => countOf(value.toString('latin1'))));
  }
}

/** Extents from positions and lengths in turn. */
export function pairs(numbers: readonly number[]): Extent[] {
  if (numbers.length % 2 !== 0) throw new BadArchive('is damaged: the map of a sparse file is broken');
  return Array.from({ length: numbers.length / 2 }, (_, index) => ({
    position: numbers[2 * index]!,
    length: numbers[2 * index + 1]!,
  }));
}

/** @throws BadArchive */
export function countOf(text: string): number {
  return /^\d{1,15}$/.test(text) ? Number(text) : refuseNumber(text);
}

function refuseNumber(text: string): never {
  throw new BadArchive(`is damaged: ${JSON.stringify(text.slice(0, 40))} is no number`);
}
