import { BadSquashfs } from './bad-squashfs.js';
import { FieldReader } from './field-reader.js';
import type { MetadataReader, MetadataTable } from './metadata-reader.js';
import { referenceOf } from './superblock.js';

/** An extended attribute. Its name is a byte per character (latin1). */
export interface Xattr {
  name: string;
  value: Buffer;
}

/** Prefixes of names, by their numbers in the format. */
export const XATTR_PREFIXES = ['user.', 'trusted.', 'security.'] as const;
/** In the type of an attribute: its value stands elsewhere. */
const OUT_OF_LINE = 0x100;
/** Most bytes of a value that Linux takes. */
const VALUE_LIMIT = 65_536;
/** Bytes that an attribute takes at least: its type, and the lengths of its name and its value. */
const SMALLEST_PAIR = 8;
/** Most bytes of all values, as often as sets have them. */
const VALUES_LIMIT = 64 * 1024 * 1024;
export const XATTR_ENTRY_SIZE = 16;
export const NO_XATTRS: readonly Xattr[] = [];

/** The sets of extended attributes of an image (squashfs.rst, section 3.7); equal sets are stored once. */
export class XattrTable {
  private readonly sets = new Map<number, readonly Xattr[]>();
  /** What sets may still have: attributes, each of which is written once, and bytes of values, which may be shared. */
  private readonly budget: { pairs: number; values: number };

  private constructor(
    private readonly ids: Buffer,
    private readonly pairs: MetadataTable | null,
  ) {
    this.budget = { pairs: (pairs?.content.length ?? 0) / SMALLEST_PAIR, values: VALUES_LIMIT };
  }

  /** Of an image without a table. */
  static readonly none = new XattrTable(Buffer.alloc(0), null);

  /**
   * @param header the 16 bytes at the position of the table
   * @throws BadSquashfs
   */
  static read(metadata: MetadataReader, position: number, header: Buffer): { table: XattrTable; start: number } {
    const [start, count] = [Number(header.readBigUInt64LE(0)), header.readUInt32LE(8)];
    const ids = metadata.indexed(position + header.length, count, XATTR_ENTRY_SIZE, 'xattr id');
    if (start > ids.start) throw new BadSquashfs('its xattr table begins behind its end');
    return { table: new XattrTable(ids.content, metadata.table(start, ids.start, 'xattr')), start };
  }

  /**
   * The attributes of the set with this number; equal numbers give the same array.
   * @throws BadSquashfs
   */
  get(number: number | null): readonly Xattr[] {
    if (number === null) return NO_XATTRS;
    const known = this.sets.get(number);
    if (known) return known;
    const set = this.readSet(number);
    this.sets.set(number, set);
    return set;
  }

  private readSet(number: number): readonly Xattr[] {
    if (!this.pairs || (number + 1) * XATTR_ENTRY_SIZE > this.ids.length)
      throw new BadSquashfs('an inode has extended attributes that its xattr table lacks');
    const entry = this.ids.subarray(number * XATTR_ENTRY_SIZE);
    const count = entry.readUInt32LE(8);
    this.budget.pairs -= count;
    if (this.budget.pairs < 0) throw new BadSquashfs('its inodes have more extended attributes than its xattr table');
    const fields = this.fieldsAt(this.pairs, entry.readBigUInt64LE(0));
    return Array.from({ length: count }, () => this.readPair(fields, this.pairs!));
  }

  private fieldsAt(pairs: MetadataTable, reference: bigint): FieldReader {
    return new FieldReader(pairs.content, pairs.resolve(referenceOf(reference)), 'xattr table');
  }

  private readPair(fields: FieldReader, pairs: MetadataTable): Xattr {
    const type = fields.u16();
    const prefix = XATTR_PREFIXES[type & 0xff];
    if (!prefix) throw new BadSquashfs(`an extended attribute has the unknown prefix ${type & 0xff}`);
    const name = prefix + fields.slice(fields.u16()).toString('latin1');
    const value = fields.slice(valueLength(fields));
    return { name, value: this.spend(type & OUT_OF_LINE ? this.valueElsewhere(value, pairs) : value) };
  }

  private valueElsewhere(place: Buffer, pairs: MetadataTable): Buffer {
    if (place.length !== 8) throw new BadSquashfs('an extended attribute refers to its value in an unknown way');
    const there = this.fieldsAt(pairs, place.readBigUInt64LE(0));
    return there.slice(valueLength(there));
  }

  private spend(value: Buffer): Buffer {
    this.budget.values -= value.length;
    if (this.budget.values < 0)
      throw new BadSquashfs('its extended attributes are larger than those of any sane image');
    return value;
  }
}

function valueLength(fields: FieldReader): number {
  const length = fields.u32();
  if (length > VALUE_LIMIT) throw new BadSquashfs(`an extended attribute has a value of ${length} bytes`);
  return length;
}
