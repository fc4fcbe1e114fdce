import { readFileSync } from 'node:fs';
import { Agent as HttpAgent } from 'node:http';
import { Agent as HttpsAgent } from 'node:https';
import { PassThrough, type Readable } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import {
  AbortMultipartUploadCommand,
  CompleteMultipartUploadCommand,
  CopyObjectCommand,
  CreateBucketCommand,
  CreateMultipartUploadCommand,
  DeleteObjectCommand,
  GetObjectCommand,
  HeadBucketCommand,
  type HeadObjectCommandOutput,
  HeadObjectCommand,
  ListMultipartUploadsCommand,
  type ListMultipartUploadsCommandOutput,
  ListObjectsV2Command,
  type ListObjectsV2CommandOutput,
  PutObjectCommand,
  S3Client,
  UploadPartCommand,
  UploadPartCopyCommand,
} from '@aws-sdk/client-s3';
import { getSignedUrl } from '@aws-sdk/s3-request-presigner';
import type { ArtifactLocation } from '../protocol/artifact-link.js';
import {
  type ArtifactInfo,
  ArtifactStoreFailure,
  type ByteRange,
  MAX_PRESIGN_SECONDS,
  NoSuchArtifact,
} from './artifact-store.js';
import { contentMd5 } from './content.js';
import { describeFailure, isMissing, isNoSuchUpload, isTransient } from './s3-failures.js';

/** Waits between the tries of a request, in milliseconds. */
const RETRY_DELAYS = [250, 750, 2000, 4000];
/** A request is not tried again when this much time has passed since the first try, in milliseconds. */
const RETRY_PERIOD = 10_000;
const CONNECT_TIMEOUT = 2_000;
/** How long a store may say nothing, in milliseconds: some copy gigabytes before they answer. */
const SILENCE_TIMEOUT = 60_000;
const MAX_SOCKETS = 64;

export interface S3Options {
  /** `http://…` or `https://…` */
  endpoint: string;
  accessKey: string;
  secretKey: string;
  /** false takes any certificate; text is the path of a file of CA certificates that are trusted in place of the system's. */
  sslValidate: boolean | string;
  /** Part of the signature. Stores other than AWS mostly take any; `us-east-1` by default. */
  region?: string;
}

/** What is kept with an object beside its content. */
export interface ObjectAttributes {
  metadata: Record<string, string>;
  contentType?: string | undefined;
  contentEncoding?: string | undefined;
  contentLanguage?: string | undefined;
  contentDisposition?: string | undefined;
  cacheControl?: string | undefined;
}

export interface ObjectHead extends ArtifactInfo {
  attributes: ObjectAttributes;
}

/** An upload in parts that the store knows. */
export interface UploadId {
  location: ArtifactLocation;
  id: string;
}

/** A part that the store took. */
export interface SentPart {
  number: number;
  etag: string;
}

/** What a request is about: the artifact that it reads, or null where a missing bucket is not a missing artifact. */
type Reads = ArtifactLocation | null;

const target = ({ bucket, key }: ArtifactLocation) => ({ Bucket: bucket, Key: key });
const partTarget = ({ location, id }: UploadId, number: number) => ({
  ...target(location),
  UploadId: id,
  PartNumber: number,
});
/** Etags come with quotes from most stores and without from some, by operation. */
const unquote = (etag = '') => etag.replaceAll('"', '');
const rangeHeader = ({ start, end }: ByteRange) => `bytes=${start}-${end}`;
/** The SDK leaves the encoding of a copy's source to its caller. */
const copySource = ({ bucket, key }: ArtifactLocation) =>
  `${bucket}/${key.split('/').map(encodeURIComponent).join('/')}`;
/** Names come encoded, since XML cannot carry all that a key may hold; `+` stands for a space there. */
const decodeKey = (key = '') => decodeURIComponent(key.replaceAll('+', ' '));

const toInput = (attributes: ObjectAttributes) => ({
  Metadata: attributes.metadata,
  ContentType: attributes.contentType,
  ContentEncoding: attributes.contentEncoding,
  ContentLanguage: attributes.contentLanguage,
  ContentDisposition: attributes.contentDisposition,
  CacheControl: attributes.cacheControl,
});

function toHead(output: HeadObjectCommandOutput): ObjectHead {
  const metadata = output.Metadata ?? {};
  return {
    size: output.ContentLength ?? 0,
    etag: unquote(output.ETag),
    metadata,
    attributes: {
      metadata,
      contentType: output.ContentType,
      contentEncoding: output.ContentEncoding,
      contentLanguage: output.ContentLanguage,
      contentDisposition: output.ContentDisposition,
      cacheControl: output.CacheControl,
    },
  };
}

/**
 * The requests of the S3 protocol that an artifact store is made of, each tried again while that is safe and may help. They reject with
 * NoSuchArtifact and ArtifactStoreFailure. This is the only file that knows the SDK.
 *
 * Settings were chosen with Ceph radosgw 16.2, the oldest store in the field: it answers 411 to the SDK's default checksum trailers,
 * gives no etag for a completed upload, and leaves the quotes of some etags away.
 */
export class S3Requests {
  private readonly client: S3Client;

  /** @throws Error where the file of CA certificates cannot be read */
  constructor(options: S3Options) {
    const agent = { keepAlive: true, maxSockets: MAX_SOCKETS };
    this.client = new S3Client({
      endpoint: options.endpoint,
      region: options.region ?? 'us-east-1',
      credentials: { accessKeyId: options.accessKey, secretAccessKey: options.secretKey },
      forcePathStyle: true,
      followRegionRedirects: false,
      requestChecksumCalculation: 'WHEN_REQUIRED',
      responseChecksumValidation: 'WHEN_REQUIRED',
      // We try again ourselves, and want the error of the network as it is: the SDK's strategies wrap those of another realm (jest).
      retryStrategy: { mode: 'once', retry: (next, args) => next(args) },
      requestHandler: {
        connectionTimeout: CONNECT_TIMEOUT,
        socketTimeout: SILENCE_TIMEOUT,
        httpAgent: new HttpAgent(agent),
        httpsAgent: new HttpsAgent({ ...agent, ...trust(options.sslValidate) }),
      },
    });
  }

  async head(location: ArtifactLocation): Promise<ObjectHead> {
    return toHead(await this.request(location, () => this.client.send(new HeadObjectCommand(target(location)))));
  }

  /** The content as a stream, and its bytes. */
  async get(location: ArtifactLocation, range?: ByteRange): Promise<{ body: Readable; size: number }> {
    const command = { ...target(location), ...(range && { Range: rangeHeader(range) }) };
    const output = await this.request(location, () => this.client.send(new GetObjectCommand(command)));
    return { body: withOurErrors(output.Body as Readable), size: output.ContentLength ?? 0 };
  }

  async presign(location: ArtifactLocation, seconds: number): Promise<string> {
    if (seconds > MAX_PRESIGN_SECONDS) throw new RangeError(`urls are valid for ${MAX_PRESIGN_SECONDS} s at most`);
    return getSignedUrl(this.client, new GetObjectCommand(target(location)), { expiresIn: seconds });
  }

  /** Stores a small object and gives its etag. */
  async put(location: ArtifactLocation, body: Buffer, md5: string, attributes: ObjectAttributes): Promise<string> {
    const command = new PutObjectCommand({
      ...target(location),
      ...toInput(attributes),
      Body: body,
      ContentLength: body.length,
      ContentMD5: md5,
    });
    return unquote((await this.request(null, () => this.client.send(command))).ETag);
  }

  /** Copies an object of up to 5 GiB, unless its etag is another; `attributes` take the place of the source's. */
  async copy(
    from: ArtifactLocation,
    to: ArtifactLocation,
    etag: string,
    attributes: ObjectAttributes | null,
  ): Promise<void> {
    const command = new CopyObjectCommand({
      ...target(to),
      CopySource: copySource(from),
      CopySourceIfMatch: `"${etag}"`,
      ...(attributes && { MetadataDirective: 'REPLACE', ...toInput(attributes) }),
    });
    await this.request(from, () => this.client.send(command));
  }

  async remove(location: ArtifactLocation): Promise<void> {
    await this.request(location, () => this.client.send(new DeleteObjectCommand(target(location))));
  }

  async *list(bucket: string, prefix: string): AsyncIterable<{ key: string; size: number }> {
    let page: ListObjectsV2CommandOutput | undefined;
    do {
      const command = new ListObjectsV2Command({
        Bucket: bucket,
        Prefix: prefix,
        EncodingType: 'url',
        ContinuationToken: page?.NextContinuationToken,
      });
      page = await this.request(null, () => this.client.send(command));
      for (const { Key, Size } of page.Contents ?? []) yield { key: decodeKey(Key), size: Size ?? 0 };
    } while (page.NextContinuationToken);
  }

  async createUpload(location: ArtifactLocation, attributes: ObjectAttributes): Promise<UploadId> {
    const command = new CreateMultipartUploadCommand({ ...target(location), ...toInput(attributes) });
    const { UploadId: id = '' } = await this.request(null, () => this.client.send(command));
    return { location, id };
  }

  async uploadPart(upload: UploadId, number: number, body: Buffer, md5 = contentMd5(body)): Promise<SentPart> {
    const command = new UploadPartCommand({
      ...partTarget(upload, number),
      Body: body,
      ContentLength: body.length,
      ContentMD5: md5,
    });
    const { ETag } = await this.request(null, () => this.client.send(command));
    return { number, etag: unquote(ETag) };
  }

  /** Takes a part from an object, unless that has another etag than the given one. */
  async copyPart(
    upload: UploadId,
    number: number,
    from: ArtifactLocation,
    range: ByteRange,
    etag?: string,
  ): Promise<SentPart> {
    const command = new UploadPartCopyCommand({
      ...partTarget(upload, number),
      CopySource: copySource(from),
      CopySourceRange: rangeHeader(range),
      ...(etag !== undefined && { CopySourceIfMatch: `"${etag}"` }),
    });
    const { CopyPartResult } = await this.request(from, () => this.client.send(command));
    return { number, etag: unquote(CopyPartResult?.ETag) };
  }

  /** Makes an object of parts, in the given order. */
  async completeUpload(upload: UploadId, parts: readonly SentPart[]): Promise<void> {
    const command = new CompleteMultipartUploadCommand({
      ...target(upload.location),
      UploadId: upload.id,
      MultipartUpload: { Parts: parts.map(({ number, etag }) => ({ PartNumber: number, ETag: `"${etag}"` })) },
    });
    await this.request(null, () => this.client.send(command));
  }

  /** Removes an upload; one that is over already is none to remove. */
  async abortUpload({ location, id }: UploadId): Promise<void> {
    const command = new AbortMultipartUploadCommand({ ...target(location), UploadId: id });
    await this.request(null, () => this.client.send(command)).catch((error: unknown) => {
      if (!isUploadOver(error)) throw error;
    });
  }

  async *listUploads(bucket: string, prefix: string): AsyncIterable<UploadId> {
    let page: ListMultipartUploadsCommandOutput | undefined;
    do {
      const command = new ListMultipartUploadsCommand({
        Bucket: bucket,
        Prefix: prefix,
        EncodingType: 'url',
        KeyMarker: page && decodeKey(page.NextKeyMarker),
        UploadIdMarker: page?.NextUploadIdMarker,
      });
      page = await this.request(null, () => this.client.send(command));
      for (const { Key, UploadId: id = '' } of page.Uploads ?? [])
        yield { location: { bucket, key: decodeKey(Key) }, id };
    } while (page.IsTruncated);
  }

  /** Makes a bucket where it is missing. */
  async provideBucket(bucket: string): Promise<void> {
    try {
      await this.request({ bucket, key: '' }, () => this.client.send(new HeadBucketCommand({ Bucket: bucket })));
    } catch (error) {
      if (!(error instanceof NoSuchArtifact)) throw error;
      await this.request(null, () => this.createBucket(bucket));
    }
  }

  /** Closes the connections that are kept open. */
  close(): void {
    this.client.destroy();
  }

  private async createBucket(bucket: string): Promise<void> {
    try {
      await this.client.send(new CreateBucketCommand({ Bucket: bucket }));
    } catch (error) {
      // Two servers that start at once both find it missing.
      if ((error as Error).name !== 'BucketAlreadyOwnedByYou') throw error;
    }
  }

  private async request<T>(reads: Reads, send: () => Promise<T>): Promise<T> {
    try {
      return await withRetries(send);
    } catch (error) {
      if (reads && isMissing(error as Error)) throw new NoSuchArtifact(reads);
      throw toFailure(error);
    }
  }
}

/** Whether a request failed since its upload was completed or aborted before. */
export function isUploadOver(error: unknown): boolean {
  return error instanceof ArtifactStoreFailure && isNoSuchUpload((error.cause ?? {}) as Error);
}

function toFailure(error: unknown): ArtifactStoreFailure {
  return new ArtifactStoreFailure(describeFailure(error as Error), { cause: error });
}

async function withRetries<T>(send: () => Promise<T>): Promise<T> {
  const first = Date.now();
  for (const delay of RETRY_DELAYS) {
    try {
      return await send();
    } catch (error) {
      if (!isTransient(error as Error) || Date.now() - first + delay > RETRY_PERIOD) throw error;
      // Clients that failed together shall not come back together.
      await sleep(delay * (0.75 + Math.random() / 2));
    }
  }
  return send();
}

function trust(sslValidate: boolean | string): { rejectUnauthorized: boolean; ca?: Buffer } {
  if (typeof sslValidate === 'boolean') return { rejectUnauthorized: sslValidate };
  try {
    return { rejectUnauthorized: true, ca: readFileSync(sslValidate) };
  } catch (error) {
    throw new Error(`S3_SSL_VALIDATE names a file that cannot be read (${(error as NodeJS.ErrnoException).code})`, {
      cause: error,
    });
  }
}

/** The same content, whose reader learns of a broken connection by an ArtifactStoreFailure. */
function withOurErrors(body: Readable): Readable {
  const ours = new PassThrough({ highWaterMark: 1024 * 1024 });
  body.once('error', (error) => ours.destroy(toFailure(error)));
  ours.once('close', () => body.destroy());
  return body.pipe(ours);
}
