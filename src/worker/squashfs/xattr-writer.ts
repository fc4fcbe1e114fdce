import type { Codec } from './codec.js';
import { NOTHING } from './inode.js';
import { encodeIndexedTable, MetadataWriter } from './metadata-writer.js';
import { encodeReference } from './superblock.js';
import { type Xattr, XATTR_ENTRY_SIZE, XATTR_PREFIXES } from './xattrs.js';

/** Sets of extended attributes, each once. */
export class XattrWriter {
  private readonly pairs: MetadataWriter;
  private readonly numbers = new Map<string, number>();
  private readonly entries: Buffer[] = [];

  constructor(private readonly codec: Codec) {
    this.pairs = new MetadataWriter(codec);
  }

  /** The number of a set; `NOTHING` for an empty one. */
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
