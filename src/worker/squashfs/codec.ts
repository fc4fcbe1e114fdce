import type { Compression } from '../../protocol/job-spec.js';

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
