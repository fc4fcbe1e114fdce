import { promisify } from 'node:util';
import { constants, deflate, deflateSync, inflate, inflateSync } from 'node:zlib';
import type { Compression } from '../../protocol/job-spec.js';
import { BadSquashfs } from './bad-squashfs.js';
import { loadNativeCodec } from './native-codecs.js';

/** What a codec is made for. */
export interface CodecOptions {
  /** Compression level, where the compression has any; null for the default. */
  level: number | null;
  /** Bytes of a data block. */
  blockSize: number;
  /** The options that the image gives for its compression (squashfs binary format, "Compression Options"); empty for none. */
  imageOptions: Buffer;
}

/**
 * Compresses and decompresses blocks of one image. Contents are at most a block long. Work in the background runs on threads, several at
 * once; a content must not be changed meanwhile.
 */
export interface Codec {
  readonly compression: Compression;
  /** Null where that saves nothing: the block is then stored as it is. */
  compress(content: Buffer): Buffer | null;
  compressInBackground(content: Buffer): Promise<Buffer | null>;
  /** @throws BadSquashfs where the block is damaged or holds more than `limit` bytes */
  decompress(block: Buffer, limit: number): Buffer;
  /** Rejects as `decompress` throws. */
  decompressInBackground(block: Buffer, limit: number): Promise<Buffer>;
}

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
