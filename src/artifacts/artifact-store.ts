import type { Readable } from 'node:stream';
import type { ArtifactLocation } from '../protocol/artifact-link.js';

/** What a store says about an artifact without giving its content. */
export interface ArtifactInfo {
  /** Bytes. */
  size: number;
  /** Entity tag without quotes. Equal to the md5 only where the artifact was stored in one piece. */
  etag: string;
  /** User metadata, names in lower case. `md5sum` is the md5 of the whole content in hex, where the writer gave it. */
  metadata: Record<string, string>;
}

/** A range of bytes, `end` included. */
export interface ByteRange {
  start: number;
  end: number;
}

/** One request to store an artifact. */
export interface PutArtifact {
  /** The content; a file is read from its path, in parts where it is large. */
  body: Buffer | { file: string };
  /** User metadata: names in lower case, values of printable ASCII (TypeError otherwise). `md5sum` is added by the store. */
  metadata?: Record<string, string>;
  contentType?: string;
}

/** What was stored. */
export interface StoredArtifact extends ArtifactInfo {
  /** md5 of the content, hex. */
  md5: string;
}

/**
 * An upload in parts whose content is made while it is sent. Parts may come in any order and are at least 5 MiB each, but for the last.
 * Ends by `complete` or `abort`; an upload that ends by neither is removed by the store's own rules.
 */
export abstract class ArtifactUpload {
  /** Sends one part (1 to 10,000). Sending a number again replaces that part. */
  abstract part(number: number, content: Buffer): Promise<void>;
  /**
   * Takes a part from a stored artifact on the store's side; `range` must lie inside of it. With an etag it is refused where the artifact
   * has another. Resolves with the etag of the part: the md5 of its content, unless the store encrypts.
   */
  abstract copyPart(number: number, source: ArtifactLocation, range: ByteRange, etag?: string): Promise<string>;
  /**
   * Makes the artifact visible with this md5 (hex) as its `md5sum`. The store does not check the md5: the caller has read the content it sent.
   * Rejects, and the upload goes on, where a part is missing: numbers go from 1 without a gap. S3 takes metadata at the beginning of an
   * upload only, so `md5sum` follows by a copy on the store's side, a moment after the content; repeat `complete` where just that failed.
   */
  abstract complete(md5: string): Promise<StoredArtifact>;
  /** Removes what was sent, after the parts that are on their way. Safe to repeat, and after `complete` without effect. */
  abstract abort(): Promise<void>;
}

/** Longest validity of a presigned url, in seconds: what signatures of version 4 allow. */
export const MAX_PRESIGN_SECONDS = 604_800;

/** The artifact is not there, or its bucket is not. */
export class NoSuchArtifact extends Error {
  constructor(readonly location: ArtifactLocation) {
    super(`there is no artifact s3://${location.bucket}/${location.key}`);
    this.name = 'NoSuchArtifact';
  }
}

/** The store did not answer, refused the credentials, is full, or failed. The message says which, without host, key or url. */
export class ArtifactStoreFailure extends Error {
  constructor(message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = 'ArtifactStoreFailure';
  }
}

/**
 * Where artifacts live.
 *
 * All methods reject with NoSuchArtifact where the artifact they read is missing, and with ArtifactStoreFailure where the store
 * itself fails. Adapters retry what is safe to retry (five tries within about ten seconds); callers do not retry again. An artifact
 * is seen whole or not at all, and readers of an artifact that is replaced or removed keep what they began to read.
 */
export abstract class ArtifactStore {
  /** Size, etag and metadata. */
  abstract head(location: ArtifactLocation): Promise<ArtifactInfo>;
  /**
   * The content, or a range of it, as a stream; the caller reads it to the end or destroys it. A connection that breaks on the way
   * fails the stream with an ArtifactStoreFailure. A range that begins behind the end of the content is refused with one, too.
   */
  abstract read(location: ArtifactLocation, range?: ByteRange): Promise<Readable>;
  /** The content as one buffer. Rejects with ArtifactStoreFailure where it is larger than `limit` bytes. */
  abstract readSmall(location: ArtifactLocation, limit: number): Promise<Buffer>;
  /**
   * A url that lets its holder GET the artifact for `seconds` (RangeError above MAX_PRESIGN_SECONDS), without other credentials. It is
   * made without asking the store, so that it says nothing of whether the artifact is there.
   */
  abstract presign(location: ArtifactLocation, seconds: number): Promise<string>;
  /**
   * Stores an artifact whole, in place of any that is there; from 8 MiB on in parts, several at a time. A file must not change
   * meanwhile. Rejects as node:fs does where it cannot be read, and leaves nothing where it fails.
   */
  abstract put(location: ArtifactLocation, artifact: PutArtifact): Promise<StoredArtifact>;
  /** Begins an upload in parts. */
  abstract upload(location: ArtifactLocation, metadata?: Record<string, string>): Promise<ArtifactUpload>;
  /**
   * Moves an artifact of any size with its metadata to another place, on the store's side, in place of any that is there; the content
   * type stays too, and the etag wherever S3 lets it be chosen. The source goes last. Safe to repeat: where the source is gone and the
   * target is there, the move is done. One that was killed may leave an upload at the target, which `abortUploads` removes.
   */
  abstract move(from: ArtifactLocation, to: ArtifactLocation): Promise<void>;
  /** Removes an artifact. A missing one is not an error. */
  abstract remove(location: ArtifactLocation): Promise<void>;
  /** Keys below a prefix, in byte order. */
  abstract list(bucket: string, prefix: string): AsyncIterable<{ key: string; size: number }>;
  /** Removes the uploads that were begun below a prefix and neither completed nor aborted, by whomever. */
  abstract abortUploads(bucket: string, prefix: string): Promise<void>;
  /** Resolves when the store answers and all buckets are there; makes a missing bucket. */
  abstract ready(buckets: string[]): Promise<void>;
}
