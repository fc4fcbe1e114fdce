import { promisify } from 'node:util';
import { constants, deflate, deflateSync, inflate, inflateSync } from 'node:zlib';
import type { Compression } from '../../protocol/job-spec.js';
import { BadSquashfs } from './bad-squashfs.js';
import type { Codec, CodecOptions } from './codec.js';
import { loadNativeCodec } from './native-codecs.js';

/**
 * The codec of a compression: zlib from Node, all others from the libraries that mksquashfs itself stands on.
 * @throws CodecMissing where the machine lacks the library
 */
export function loadCodec(compression: Compression, options: CodecOptions): Codec {
  return compression === 'gzip' ? new GzipCodec(options) : loadNativeCodec(compression, options);
}

const deflateInBackground = promisify<Buffer, object, Buffer>(deflate);
const inflateInBackground = promisify<Buffer, object, Buffer>(inflate);

class GzipCodec implements Codec {
  readonly compression = 'gzip';
  private readonly level: number;

  constructor({ level }: CodecOptions) {
    this.level = level ?? constants.Z_BEST_COMPRESSION;
  }

  compress(content: Buffer): Buffer | null {
    return ifSmaller(deflateSync(content, this.deflateOptions(content)), content);
  }

  async compressInBackground(content: Buffer): Promise<Buffer | null> {
    return ifSmaller(await deflateInBackground(content, this.deflateOptions(content)), content);
  }

  decompress(block: Buffer, limit: number): Buffer {
    try {
      return inflateSync(block, inflateOptions(limit));
    } catch (error) {
      throw badBlock(error);
    }
  }

  async decompressInBackground(block: Buffer, limit: number): Promise<Buffer> {
    return inflateInBackground(block, inflateOptions(limit)).catch((error: unknown) => {
      throw badBlock(error);
    });
  }

  /** One piece of output for one piece of input: every further piece would be a further trip to a thread. */
  private deflateOptions(content: Buffer) {
    return { level: this.level, chunkSize: Math.max(content.length, constants.Z_MIN_CHUNK) };
  }
}

function inflateOptions(limit: number) {
  return { chunkSize: Math.max(limit, constants.Z_MIN_CHUNK), maxOutputLength: limit };
}

function ifSmaller(compressed: Buffer, content: Buffer): Buffer | null {
  return compressed.length < content.length ? compressed : null;
}

function badBlock(cause: unknown): BadSquashfs {
  return new BadSquashfs('a block of it cannot be decompressed', { cause });
}
