import type { Readable } from 'node:stream';
import { buffer } from 'node:stream/consumers';
import type { ArtifactLocation } from '../protocol/artifact-link.js';
import {
  type ArtifactInfo,
  ArtifactStore,
  ArtifactStoreFailure,
  ArtifactUpload,
  type ByteRange,
  NoSuchArtifact,
  type PutArtifact,
  type StoredArtifact,
} from './artifact-store.js';
import { type Content, type Digests, digestContent, openContent } from './content.js';
import { toMetadata } from './metadata.js';
import {
  choosePartSize,
  guessPartSize,
  isMultipart,
  MAX_COPY_SIZE,
  multipartEtag,
  PART_SIZE,
  partRanges,
} from './part-layout.js';
import {
  isUploadOver,
  type ObjectAttributes,
  type ObjectHead,
  type S3Options,
  S3Requests,
  type SentPart,
  type UploadId,
} from './s3-requests.js';

/** Parts of an artifact that are on their way at once; each takes the memory of a part. */
const PARALLEL_PARTS = 4;

const isSame = (one: ArtifactLocation, other: ArtifactLocation) => one.bucket === other.bucket && one.key === other.key;
const toInfo = ({ size, etag, metadata }: ArtifactInfo): ArtifactInfo => ({ size, etag, metadata });

/** Artifacts in a store that speaks S3: the embedded one, Ceph radosgw, MinIO, AWS. */
export class S3ArtifactStore extends ArtifactStore {
  private readonly requests: S3Requests;

  /** @throws Error where the file of CA certificates cannot be read */
  constructor(options: S3Options) {
    super();
    this.requests = new S3Requests(options);
  }

  async head(location: ArtifactLocation): Promise<ArtifactInfo> {
    return toInfo(await this.requests.head(location));
  }

  async read(location: ArtifactLocation, range?: ByteRange): Promise<Readable> {
    return (await this.requests.get(location, range)).body;
  }

  async readSmall(location: ArtifactLocation, limit: number): Promise<Buffer> {
    const { body, size } = await this.requests.get(location);
    if (size <= limit) return buffer(body);
    body.destroy();
    throw new ArtifactStoreFailure(`s3://${location.bucket}/${location.key} has ${size} bytes, more than ${limit}`);
  }

  presign(location: ArtifactLocation, seconds: number): Promise<string> {
    return this.requests.presign(location, seconds);
  }

  async put(location: ArtifactLocation, artifact: PutArtifact): Promise<StoredArtifact> {
    const content = await openContent(artifact.body);
    try {
      const partSize = content.size < PART_SIZE ? PART_SIZE : choosePartSize(content.size);
      const ranges = content.size === 0 ? [{ start: 0, end: -1 }] : partRanges(content.size, partSize);
      const digests = await digestContent(content, ranges);
      const metadata = { ...toMetadata(artifact.metadata), md5sum: digests.md5 };
      const attributes = { metadata, contentType: artifact.contentType };
      const etag =
        content.size < PART_SIZE
          ? await this.requests.put(location, await content.read(ranges[0]!), digests.parts[0]!, attributes)
          : await this.putInParts(location, content, ranges, digests, attributes);
      return { size: content.size, etag, metadata, md5: digests.md5 };
    } finally {
      await content.close();
    }
  }

  async upload(location: ArtifactLocation, metadata?: Record<string, string>): Promise<ArtifactUpload> {
    const upload = await this.requests.createUpload(location, { metadata: toMetadata(metadata) });
    return new S3Upload(this.requests, upload, (md5) => this.describeWith(location, md5));
  }

  async move(from: ArtifactLocation, to: ArtifactLocation): Promise<void> {
    const source = await this.findHead(from);
    if (!source) {
      if (await this.findHead(to)) return;
      throw new NoSuchArtifact(from);
    }
    if (isSame(from, to)) return;
    await this.copy(from, to, source);
    const moved = await this.requests.head(to);
    if (moved.size !== source.size)
      throw new ArtifactStoreFailure(
        `the copy s3://${to.bucket}/${to.key} has ${moved.size} bytes in place of ${source.size}: its source was kept; look at the log of the store`,
      );
    await this.remove(from);
  }

  async remove(location: ArtifactLocation): Promise<void> {
    await this.requests.remove(location).catch((error: unknown) => {
      if (!(error instanceof NoSuchArtifact)) throw error;
    });
  }

  list(bucket: string, prefix: string): AsyncIterable<{ key: string; size: number }> {
    return this.requests.list(bucket, prefix);
  }

  async abortUploads(bucket: string, prefix: string): Promise<void> {
    for await (const upload of this.requests.listUploads(bucket, prefix)) await this.requests.abortUpload(upload);
  }

  async ready(buckets: string[]): Promise<void> {
    await Promise.all(buckets.map((bucket) => this.requests.provideBucket(bucket)));
  }

  /** Closes idle connections. The store can still be used. */
  close(): void {
    this.requests.close();
  }

  private async findHead(location: ArtifactLocation): Promise<ObjectHead | null> {
    return this.requests.head(location).catch((error: unknown) => {
      if (error instanceof NoSuchArtifact) return null;
      throw error;
    });
  }

  private async putInParts(
    location: ArtifactLocation,
    content: Content,
    ranges: readonly ByteRange[],
    digests: Digests,
    attributes: ObjectAttributes,
  ): Promise<string> {
    await this.inParts(location, attributes, ranges, async (upload, number, range) =>
      // The md5 is that of the first reading: a file that changed since is refused by the store.
      this.requests.uploadPart(upload, number, await content.read(range), digests.parts[number - 1]),
    );
    const { size, etag } = await this.requests.head(location);
    if (size !== content.size)
      throw new ArtifactStoreFailure(`the artifact store kept ${size} of ${content.size} bytes: look at its log`);
    return etag;
  }

  /** Copies an artifact with its attributes, and with its etag where S3 lets us choose it. */
  private async copy(from: ArtifactLocation, to: ArtifactLocation, source: ObjectHead): Promise<void> {
    // An etag that is the md5 of the content survives in a copy at once only, one of parts in a copy with the same parts only.
    const atOnce = source.size <= MAX_COPY_SIZE && (source.size < PART_SIZE || !isMultipart(source.etag));
    if (atOnce) await this.requests.copy(from, to, source.etag, null);
    else await this.copyInParts(from, to, source, source.attributes);
  }

  private async copyInParts(
    from: ArtifactLocation,
    to: ArtifactLocation,
    source: ObjectHead,
    attributes: ObjectAttributes,
  ): Promise<void> {
    const ranges = partRanges(source.size, guessPartSize(source.size, source.etag));
    await this.inParts(to, attributes, ranges, (upload, number, range) =>
      this.requests.copyPart(upload, number, from, range, source.etag),
    );
  }

  /** Gives a stored artifact its md5sum. S3 cannot change metadata in place: it is a copy onto itself, on the store's side. */
  private async describeWith(location: ArtifactLocation, md5: string): Promise<StoredArtifact> {
    const stored = await this.requests.head(location);
    const attributes = { ...stored.attributes, metadata: { ...stored.metadata, md5sum: md5 } };
    if (stored.size <= MAX_COPY_SIZE) await this.requests.copy(location, location, stored.etag, attributes);
    else await this.copyInParts(location, location, stored, attributes);
    return { ...toInfo(await this.requests.head(location)), md5 };
  }

  /** Makes an artifact of parts, several at a time. Where that fails, what was sent is removed. */
  private async inParts(
    location: ArtifactLocation,
    attributes: ObjectAttributes,
    ranges: readonly ByteRange[],
    send: (upload: UploadId, number: number, range: ByteRange) => Promise<SentPart>,
  ): Promise<void> {
    const upload = await this.requests.createUpload(location, attributes);
    try {
      const parts = await inParallel(ranges, (range, index) => send(upload, index + 1, range));
      await completeOnce(this.requests, upload, parts);
    } catch (error) {
      // The failure is what the caller needs to know; what cannot be removed now, abortUploads removes.
      await this.requests.abortUpload(upload).catch(() => {});
      throw error;
    }
  }
}

/** Parts that arrive one by one. */
class S3Upload extends ArtifactUpload {
  private readonly parts = new Map<number, SentPart>();
  private readonly sending = new Set<Promise<SentPart>>();
  private completed = false;

  constructor(
    private readonly requests: S3Requests,
    private readonly upload: UploadId,
    private readonly describeWith: (md5: string) => Promise<StoredArtifact>,
  ) {
    super();
  }

  async part(number: number, content: Buffer): Promise<void> {
    await this.keep(this.requests.uploadPart(this.upload, number, content));
  }

  async copyPart(number: number, source: ArtifactLocation, range: ByteRange, etag?: string): Promise<string> {
    const part = await this.keep(this.requests.copyPart(this.upload, number, source, range, etag));
    return part.etag;
  }

  async complete(md5: string): Promise<StoredArtifact> {
    const parts = [...this.parts.values()].toSorted((one, other) => one.number - other.number);
    const missing = parts.findIndex(({ number }, index) => number !== index + 1);
    if (missing >= 0 || parts.length === 0)
      throw new ArtifactStoreFailure(`part ${Math.max(missing, 0) + 1} of the upload is missing`);
    if (!this.completed) await completeOnce(this.requests, this.upload, parts);
    this.completed = true;
    return this.describeWith(md5);
  }

  async abort(): Promise<void> {
    if (this.completed) return;
    // A part that arrives after the upload was aborted would stay in some stores.
    await Promise.allSettled(this.sending);
    await this.requests.abortUpload(this.upload);
  }

  private keep(sent: Promise<SentPart>): Promise<SentPart> {
    const kept = sent
      .then((part) => {
        this.parts.set(part.number, part);
        return part;
      })
      .finally(() => this.sending.delete(kept));
    this.sending.add(kept);
    return kept;
  }
}

/** Completes an upload, also where the answer to a first try got lost: then the upload is over and the artifact is there. */
async function completeOnce(requests: S3Requests, upload: UploadId, parts: readonly SentPart[]): Promise<void> {
  try {
    await requests.completeUpload(upload, parts);
  } catch (error) {
    if (!isUploadOver(error)) throw error;
    const stored = await requests.head(upload.location).catch(() => null);
    if (stored?.etag !== multipartEtag(parts.map(({ etag }) => etag))) throw error;
  }
}

/** Results in the order of the items, of which a few are worked on at a time. After a failure no item is begun, and it rejects when all are over. */
async function inParallel<T, R>(items: readonly T[], work: (item: T, index: number) => Promise<R>): Promise<R[]> {
  const results: R[] = [];
  const rest = items.entries();
  let failed = false;
  const takeTurns = async () => {
    for (const [index, item] of rest) {
      if (failed) return;
      results[index] = await work(item, index);
    }
  };
  const turns = Array.from({ length: PARALLEL_PARTS }, () =>
    takeTurns().catch((error: unknown) => {
      failed = true;
      throw error;
    }),
  );
  const ends = await Promise.allSettled(turns);
  const failure = ends.find((end) => end.status === 'rejected');
  if (failure) throw failure.reason;
  return results;
}
