/*
 * Headers of packages in the format of RPM version 4 (rpm's docs/manual/format.md): an index of tags, and a store that holds their values.
 */

/** A value of a tag. What is called a list has one type for all of its items. */
export type RpmValue =
  | { type: 'int16' | 'int32'; values: readonly number[] }
  | { type: 'string'; value: string }
  | { type: 'strings' | 'translated'; values: readonly string[] }
  | { type: 'bytes'; value: Buffer };

/** A tag by its number, with its value. */
export type RpmTag = readonly [tag: number, value: RpmValue];

/** Numbers of the types, and the multiple at which their values begin in the store. */
const TYPES = {
  int16: { number: 3, alignment: 2 },
  int32: { number: 4, alignment: 4 },
  string: { number: 6, alignment: 1 },
  bytes: { number: 7, alignment: 1 },
  strings: { number: 8, alignment: 1 },
  translated: { number: 9, alignment: 1 },
} as const;

/** `8e ad e8`, version 1, four bytes that are reserved. */
const MAGIC = Buffer.from('8eade80100000000', 'hex');
/** Bytes of an entry of the index. */
const ENTRY = 16;

function encode(value: RpmValue): { count: number; bytes: Buffer } {
  switch (value.type) {
    case 'bytes':
      return { count: value.value.length, bytes: value.value };
    case 'string':
      return { count: 1, bytes: Buffer.from(`${value.value}\0`) };
    case 'int16':
    case 'int32':
      return { count: value.values.length, bytes: encodeIntegers(value.values, value.type === 'int16' ? 2 : 4) };
    default:
      return { count: value.values.length, bytes: Buffer.from(value.values.map((text) => `${text}\0`).join('')) };
  }
}

function encodeIntegers(values: readonly number[], size: 2 | 4): Buffer {
  const bytes = Buffer.alloc(size * values.length);
  for (const [index, value] of values.entries()) bytes.writeUIntBE(value, size * index, size);
  return bytes;
}

function entry(tag: number, type: number, offset: number, count: number): Buffer {
  const bytes = Buffer.alloc(ENTRY);
  for (const [index, value] of [tag, type, offset, count].entries()) bytes.writeInt32BE(value, 4 * index);
  return bytes;
}

/**
 * Encodes a header.
 * @param region tag that says where the header ends that must not be changed: 62 for signatures, 63 for the package itself
 */
export function encodeHeader(region: number, tags: readonly RpmTag[]): Buffer {
  const index: Buffer[] = [];
  const store: Buffer[] = [];
  let size = 0;
  const put = (bytes: Buffer) => {
    store.push(bytes);
    size += bytes.length;
  };
  for (const [tag, value] of tags.toSorted(([one], [other]) => one - other)) {
    const { number, alignment } = TYPES[value.type];
    put(Buffer.alloc((alignment - (size % alignment)) % alignment));
    const { count, bytes } = encode(value);
    index.push(entry(tag, number, size, count));
    put(bytes);
  }
  // The region spans all entries, its own included; where it begins is told backwards from its end.
  const count = index.length + 1;
  index.unshift(entry(region, TYPES.bytes.number, size, ENTRY));
  put(entry(region, TYPES.bytes.number, -count * ENTRY, ENTRY));
  const sizes = Buffer.alloc(8);
  sizes.writeUInt32BE(count, 0);
  sizes.writeUInt32BE(size, 4);
  return Buffer.concat([MAGIC, sizes, ...index, ...store]);
}
