import type { Writable } from 'node:stream';

const MIB = 1024 * 1024;
/** Bytes of what a phase prints that are kept from its beginning, as they come, and from its end, when that is there. */
const HEAD = 12 * MIB;
const TAIL = 4 * MIB;

/**
 * What is kept of the output of a phase. A shell's log grows with whatever its user does, and a build prints as much as its scripts do: the
 * beginning says what was done, and the end how that went.
 */
export class BoundedLog {
  private room = HEAD;
  /** The latest bytes behind the beginning: byte `n` of them stands at `n % TAIL`. */
  private ring: Buffer | null = null;
  private behind = 0;

  constructor(private readonly file: Writable) {}

  add(chunk: Buffer): void {
    const head = chunk.subarray(0, this.room);
    if (head.length) this.file.write(head);
    this.room -= head.length;
    if (head.length < chunk.length) this.keep(chunk.subarray(head.length));
  }

  /** Writes the end, behind a line that says how much is left out before it. */
  end(): void {
    if (!this.ring) return;
    const left = this.behind - TAIL;
    if (left <= 0) return void this.file.write(this.ring.subarray(0, this.behind));
    const oldest = this.behind % TAIL;
    this.file.write(`\n[${left} bytes of the log of this phase were left out here]\n`);
    this.file.write(this.ring.subarray(oldest));
    this.file.write(this.ring.subarray(0, oldest));
  }

  private keep(bytes: Buffer): void {
    this.ring ??= Buffer.alloc(TAIL);
    for (let rest = bytes; rest.length;) {
      const copied = rest.copy(this.ring, this.behind % TAIL);
      this.behind += copied;
      rest = rest.subarray(copied);
    }
  }
}
