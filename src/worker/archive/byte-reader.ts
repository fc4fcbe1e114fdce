import { BadArchive } from './bad-archive.js';

/** Takes bytes from a stream, in pieces of the sizes that are asked for. */
export class ByteReader {
  private readonly chunks: AsyncIterator<Buffer>;
  private rest: Buffer = Buffer.alloc(0);

  constructor(source: AsyncIterable<Buffer>) {
    this.chunks = source[Symbol.asyncIterator]();
  }

  /**
   * The next bytes, as one buffer; null where the stream has ended and has none at all.
   * @throws BadArchive where it has some, but fewer
   */
  async take(length: number): Promise<Buffer | null> {
    const parts: Buffer[] = [];
    for await (const piece of this.pieces(length)) parts.push(piece);
    const content = parts.length === 1 ? parts[0]! : Buffer.concat(parts);
    if (content.length === 0 && length > 0) return null;
    if (content.length < length) throw cutOff();
    return content;
  }

  /** As many of the next bytes as there are, in pieces as they come. */
  async *pieces(length: number): AsyncGenerator<Buffer, void, void> {
    for (let left = length; left > 0;) {
      if (this.rest.length === 0 && !(await this.next())) return;
      const piece = this.rest.subarray(0, left);
      this.rest = this.rest.subarray(piece.length);
      left -= piece.length;
      yield piece;
    }
  }

  private async next(): Promise<boolean> {
    const { value, done } = await this.chunks.next();
    if (done) return false;
    this.rest = value;
    return true;
  }
}

export function cutOff(): BadArchive {
  return new BadArchive('is damaged: it is cut off');
}
