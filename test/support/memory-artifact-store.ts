import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { Readable } from 'node:stream';
import {
  type ArtifactInfo,
  ArtifactStore,
  ArtifactStoreFailure,
  ArtifactUpload,
  type ByteRange,
  MAX_PRESIGN_SECONDS,
  NoSuchArtifact,
  type PutArtifact,
  type StoredArtifact,
} from '../../src/artifacts/artifact-store.js';
import { toMetadata } from '../../src/artifacts/metadata.js';
import { multipartEtag } from '../../src/artifacts/part-layout.js';
import type { ArtifactLocation } from '../../src/protocol/artifact-link.js';

interface StoredObject {
  content: Buffer;
  etag: string;
  metadata: Record<string, string>;
  contentType: string;
}

const DEFAULT_CONTENT_TYPE = 'binary/octet-stream';
const md5Of = (content: Buffer) => createHash('md5').update(content).digest('hex');
const byBytes = (one: string, other: string) => Buffer.compare(Buffer.from(one), Buffer.from(other));

/** An artifact store that holds everything in memory: for tests of what uses a store. It passes the store's contract suite. */
export class MemoryArtifactStore extends ArtifactStore {
  private readonly buckets = new Map<string, Map<string, StoredObject>>();
  private readonly uploads = new Set<MemoryUpload>();

  constructor(buckets: readonly string[] = []) {
    super();
    for (const bucket of buckets) this.buckets.set(bucket, new Map());
  }

  async head(location: ArtifactLocation): Promise<ArtifactInfo> {
    return infoOf(this.get(location));
  }

  async read(location: ArtifactLocation, range?: ByteRange): Promise<Readable> {
    return Readable.from([slice(this.get(location).content, range)], { objectMode: false });
  }

  async readSmall(location: ArtifactLocation, limit: number): Promise<Buffer> {
    const { content } = this.get(location);
    if (content.length <= limit) return Buffer.from(content);
    throw new ArtifactStoreFailure(
      `s3://${location.bucket}/${location.key} has ${content.length} bytes, more than ${limit}`,
    );
  }

  /** A url that carries the content itself; of a missing artifact one that cannot be fetched. */
  async presign(location: ArtifactLocation, seconds: number): Promise<string> {
    if (seconds > MAX_PRESIGN_SECONDS) throw new RangeError(`urls are valid for ${MAX_PRESIGN_SECONDS} s at most`);
    const object = this.find(location);
    return object ? `data:${object.contentType};base64,${object.content.toString('base64')}` : 'about:blank';
  }

  async put(location: ArtifactLocation, { body, ...artifact }: PutArtifact): Promise<StoredArtifact> {
    const content = Buffer.isBuffer(body) ? Buffer.from(body) : await readFile(body.file);
    const md5 = md5Of(content);
    const metadata = { ...toMetadata(artifact.metadata), md5sum: md5 };
    return this.store(location, {
      content,
      etag: md5,
      metadata,
      contentType: artifact.contentType ?? DEFAULT_CONTENT_TYPE,
    });
  }

  async upload(location: ArtifactLocation, metadata?: Record<string, string>): Promise<ArtifactUpload> {
    this.bucket(location.bucket);
    const upload = new MemoryUpload(location, toMetadata(metadata), {
      read: (source, range, etag) => {
        const object = this.get(source);
        if (etag !== undefined && etag !== object.etag) throw new ArtifactStoreFailure('the artifact was replaced');
        return slice(object.content, range);
      },
      store: (object) => this.store(location, object),
      end: () => this.uploads.delete(upload),
    });
    this.uploads.add(upload);
    return upload;
  }

  async move(from: ArtifactLocation, to: ArtifactLocation): Promise<void> {
    const source = this.find(from);
    if (!source) {
      if (this.find(to)) return;
      throw new NoSuchArtifact(from);
    }
    this.store(to, source);
    if (from.bucket !== to.bucket || from.key !== to.key) await this.remove(from);
  }

  async remove({ bucket, key }: ArtifactLocation): Promise<void> {
    this.buckets.get(bucket)?.delete(key);
  }

  async *list(bucket: string, prefix: string): AsyncIterable<{ key: string; size: number }> {
    const objects = [...this.bucket(bucket)].toSorted(([one], [other]) => byBytes(one, other));
    for (const [key, { content }] of objects) if (key.startsWith(prefix)) yield { key, size: content.length };
  }

  async abortUploads(bucket: string, prefix: string): Promise<void> {
    for (const upload of this.uploads)
      if (upload.location.bucket === bucket && upload.location.key.startsWith(prefix)) await upload.abort();
  }

  async ready(buckets: string[]): Promise<void> {
    for (const bucket of buckets) if (!this.buckets.has(bucket)) this.buckets.set(bucket, new Map());
  }

  /** Keys of the uploads that were neither completed nor aborted. */
  openUploads(): string[] {
    return [...this.uploads].map(({ location }) => location.key);
  }

  contentTypeOf(location: ArtifactLocation): string {
    return this.get(location).contentType;
  }

  private bucket(name: string): Map<string, StoredObject> {
    const objects = this.buckets.get(name);
    if (!objects) throw new ArtifactStoreFailure('the artifact store has no such bucket');
    return objects;
  }

  private find({ bucket, key }: ArtifactLocation): StoredObject | undefined {
    return this.buckets.get(bucket)?.get(key);
  }

  private get(location: ArtifactLocation): StoredObject {
    const object = this.find(location);
    if (!object) throw new NoSuchArtifact(location);
    return object;
  }

  private store({ bucket, key }: ArtifactLocation, object: StoredObject): StoredArtifact {
    this.bucket(bucket).set(key, object);
    return { ...infoOf(object), md5: object.metadata['md5sum'] ?? md5Of(object.content) };
  }
}

/** What an upload asks of its store. */
interface UploadStore {
  /** @throws NoSuchArtifact, ArtifactStoreFailure where it has another etag */
  read(source: ArtifactLocation, range: ByteRange, etag?: string): Buffer;
  store(object: StoredObject): StoredArtifact;
  end(): void;
}

class MemoryUpload extends ArtifactUpload {
  private readonly parts = new Map<number, Buffer>();
  private state: 'open' | 'aborted' | StoredArtifact = 'open';

  constructor(
    readonly location: ArtifactLocation,
    private readonly metadata: Record<string, string>,
    private readonly target: UploadStore,
  ) {
    super();
  }

  async part(number: number, content: Buffer): Promise<void> {
    this.checkOpen();
    this.parts.set(number, Buffer.from(content));
  }

  async copyPart(number: number, source: ArtifactLocation, range: ByteRange, etag?: string): Promise<string> {
    const content = this.target.read(source, range, etag);
    await this.part(number, content);
    return md5Of(content);
  }

  async complete(md5: string): Promise<StoredArtifact> {
    if (typeof this.state === 'object') return this.state;
    this.checkOpen();
    const parts = [...this.parts].toSorted(([one], [other]) => one - other);
    const missing = parts.findIndex(([number], index) => number !== index + 1);
    if (missing >= 0 || parts.length === 0)
      throw new ArtifactStoreFailure(`part ${Math.max(missing, 0) + 1} of the upload is missing`);
    const contents = parts.map(([, content]) => content);
    this.state = this.target.store({
      content: Buffer.concat(contents),
      etag: multipartEtag(contents.map(md5Of)),
      metadata: { ...this.metadata, md5sum: md5 },
      contentType: DEFAULT_CONTENT_TYPE,
    });
    this.target.end();
    return this.state;
  }

  async abort(): Promise<void> {
    if (this.state !== 'open') return;
    this.state = 'aborted';
    this.parts.clear();
    this.target.end();
  }

  private checkOpen(): void {
    if (this.state !== 'open') throw new ArtifactStoreFailure('the upload is over: it was completed or aborted before');
  }
}

function infoOf({ content, etag, metadata }: StoredObject): ArtifactInfo {
  return { size: content.length, etag, metadata: { ...metadata } };
}

/** A range as HTTP cuts it: one that begins behind the end is refused, one that ends there is shortened. */
function slice(content: Buffer, range?: ByteRange): Buffer {
  if (!range) return content;
  if (range.start >= content.length || range.start > range.end)
    throw new ArtifactStoreFailure('the range does not lie inside of the artifact');
  return content.subarray(range.start, range.end + 1);
}
