import { BadSquashfs } from './bad-squashfs.js';

/** Reads little-endian fields one after the other; never beyond the end of what it was given. */
export class FieldReader {
  constructor(
    private readonly bytes: Buffer,
    /** Bytes from the start of what is read. */
    public position: number,
    /** What is read, for messages. */
    private readonly what: string,
  ) {}

  u16(): number {
    return this.bytes.readUInt16LE(this.take(2));
  }

  i16(): number {
    return this.bytes.readInt16LE(this.take(2));
  }

  u32(): number {
    return this.bytes.readUInt32LE(this.take(4));
  }

  /** @throws BadSquashfs for numbers that are larger than any image */
  u64(): number {
    const value = this.bytes.readBigUInt64LE(this.take(8));
    if (value > BigInt(Number.MAX_SAFE_INTEGER)) throw new BadSquashfs(`a number in its ${this.what} is too large`);
    return Number(value);
  }

  /** A view, not a copy. */
  slice(length: number): Buffer {
    const start = this.take(length);
    return this.bytes.subarray(start, start + length);
  }

  private take(length: number): number {
    const start = this.position;
    if (start + length > this.bytes.length) throw new BadSquashfs(`its ${this.what} ends too early`);
    this.position = start + length;
    return start;
  }
}
