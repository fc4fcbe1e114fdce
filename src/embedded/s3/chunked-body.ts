import { createHash, type Hash } from 'node:crypto';
import { Transform, type TransformCallback } from 'node:stream';
import { s3Errors } from './s3-error.js';
import type { ChunkVerifier } from './signature.js';

/** Longest line between chunks, bytes: a length, a signature, or a trailer. */
const LINE_LIMIT = 4096;
const TRAILER_LIMIT = 16;
const HEADER = /^([0-9a-fA-F]{1,8})(?:;chunk-signature=([0-9a-f]{64}))?$/;
const TRAILER_SIGNATURE = 'x-amz-trailer-signature';

/**
 * Decodes `aws-chunked` bodies (AWS documentation, "Signature calculations for the authorization header: transferring payload in multiple
 * chunks"): chunks of `<length>[;chunk-signature=…]\r\n<content>\r\n`, the last of length 0, then trailers and an empty line. Signatures
 * are checked where the stream has them. Nothing is trusted before the end: readers must wait for it.
 */
export class ChunkedBody extends Transform {
  private readonly trailers = new Map<string, string>();
  private buffer: Buffer = Buffer.alloc(0);
  private state: 'header' | 'content' | 'content-end' | 'trailers' | 'end' = 'header';
  private left = 0;
  private signature = '';
  private hash: Hash | null = null;

  /**
   * @param verifier null for streams without signatures
   * @param hasTrailers whether the stream was announced to have trailers
   */
  constructor(
    private readonly verifier: ChunkVerifier | null,
    private readonly hasTrailers: boolean,
  ) {
    super({ highWaterMark: 1 << 20 });
  }

  /**
   * A trailer of the stream, when that has ended.
   * @throws S3Error where the stream had none of this name
   */
  trailer(name: string): string {
    const value = this.trailers.get(name);
    if (value === undefined) throw s3Errors.malformedTrailer(name);
    return value;
  }

  override _transform(chunk: Buffer, _encoding: BufferEncoding, done: TransformCallback): void {
    this.buffer = this.buffer.length ? Buffer.concat([this.buffer, chunk]) : chunk;
    try {
      while (this.step());
      done();
    } catch (error) {
      done(error as Error);
    }
  }

  override _flush(done: TransformCallback): void {
    try {
      // Some clients leave out the last empty line.
      if (this.buffer.length || !['trailers', 'end'].includes(this.state)) throw s3Errors.incompleteBody();
      this.checkTrailers();
      done();
    } catch (error) {
      done(error as Error);
    }
  }

  /** Takes one piece off the buffer; false where it needs more bytes. */
  private step(): boolean {
    if (this.state === 'content') return this.takeContent();
    if (this.state === 'end' && this.buffer.length) throw s3Errors.invalidRequest('Something follows the last chunk.');
    const line = this.takeLine();
    if (line === null) return false;
    if (this.state === 'content-end') this.endChunk(line);
    else if (this.state === 'header') this.beginChunk(line);
    else this.addTrailer(line);
    return true;
  }

  private takeLine(): string | null {
    const end = this.buffer.indexOf('\r\n');
    if (end > LINE_LIMIT || (end < 0 && this.buffer.length > LINE_LIMIT))
      throw s3Errors.invalidRequest('A chunk has a malformed header.');
    if (end < 0) return null;
    const line = this.buffer.toString('latin1', 0, end);
    this.buffer = this.buffer.subarray(end + 2);
    return line;
  }

  private beginChunk(line: string): void {
    const match = HEADER.exec(line);
    if (!match) throw s3Errors.invalidRequest('A chunk has a malformed header.');
    this.left = Number.parseInt(match[1]!, 16);
    this.signature = match[2] ?? '';
    this.hash = this.verifier && createHash('sha256');
    if (this.left) this.state = 'content';
    else {
      this.checkChunk();
      this.state = 'trailers';
    }
  }

  private takeContent(): boolean {
    if (!this.buffer.length) return false;
    const content = this.buffer.subarray(0, this.left);
    this.buffer = this.buffer.subarray(content.length);
    this.left -= content.length;
    this.hash?.update(content);
    this.push(content);
    if (!this.left) this.state = 'content-end';
    return true;
  }

  private endChunk(line: string): void {
    if (line) throw s3Errors.invalidRequest('A chunk is longer than its header says.');
    this.checkChunk();
    this.state = 'header';
  }

  private checkChunk(): void {
    if (this.verifier && !this.verifier.isChunk(this.hash!.digest('hex'), this.signature))
      throw s3Errors.signatureDoesNotMatch();
  }

  private addTrailer(line: string): void {
    if (!line) {
      this.state = 'end';
      return;
    }
    const colon = line.indexOf(':');
    if (colon < 1 || !this.hasTrailers || this.trailers.size === TRAILER_LIMIT)
      throw s3Errors.invalidRequest('A trailer is malformed, or was not announced.');
    this.trailers.set(line.slice(0, colon).trim().toLowerCase(), line.slice(colon + 1).trim());
  }

  private checkTrailers(): void {
    if (!this.verifier || !this.hasTrailers) return;
    const lines = [...this.trailers].filter(([name]) => name !== TRAILER_SIGNATURE);
    const text = lines.map(([name, value]) => `${name}:${value}\n`).join('');
    if (!this.verifier.isTrailer(text, this.trailer(TRAILER_SIGNATURE))) throw s3Errors.signatureDoesNotMatch();
  }
}
