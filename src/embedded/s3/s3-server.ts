import { mkdir } from 'node:fs/promises';
import http, { type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import path from 'node:path';
import type { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { CHECKSUMS, type ChecksumName } from './checksums.js';
import { ChunkedBody } from './chunked-body.js';
import { lockDirectory } from './directory-lock.js';
import { listKeys } from './listing.js';
import {
  type Expectation,
  matches,
  type ObjectAttributes,
  ObjectStore,
  type Precondition,
  sliceSegments,
  type StoredObject,
  type Upload,
} from './object-store.js';
import { S3Error, s3Errors } from './s3-error.js';
import { awsEncode, verifySignature, type Verified } from './signature.js';
import { parseXml, type XmlContent, xmlDocument } from './xml.js';

export interface S3ServerOptions {
  /** Holds all objects. Nobody else writes there. */
  directory: string;
  /** 127.0.0.1 by default. */
  host?: string;
  /** 0, the default, takes a free one. */
  port?: number;
  credentials: { accessKey: string; secretKey: string };
  /** Bytes of the disk that stay free: what would go below them is answered with 507. */
  reserveBytes?: number;
  /** Uploads that were begun longer ago and neither completed nor aborted are removed; a week by default. */
  staleUploadSeconds?: number;
  log?: (message: string, facts?: Record<string, unknown>) => void;
}

export interface S3Server {
  /** `http://host:port`. */
  readonly endpoint: string;
  readonly port: number;
  /**
   * The file that is an object's whole content, for a reader on the same disk that uses it in place; null where the object is missing or is
   * not one file. The file never changes; when the object is deleted it goes, but for readers that have it open, mounted or linked.
   */
  localFile(bucket: string, key: string): Promise<string | null>;
  close(): Promise<void>;
}

/** Largest body that is XML. */
const XML_LIMIT = 4 * 1024 * 1024;
const KEY_LIMIT = 1024;
const PAGE_LIMIT = 1000;
const OWNER = { ID: 'ims', DisplayName: 'ims' };
/** Reads of things that this store has only one way of: they are answered as a bucket that nobody configured would. */
const UNSUPPORTED = [
  'lifecycle',
  'cors',
  'website',
  'replication',
  'notification',
  'logging',
  'tagging',
  'encryption',
  'object-lock',
  'policyStatus',
  'torrent',
  'restore',
  'select',
  'retention',
  'legal-hold',
  'requestPayment',
  'accelerate',
  'inventory',
  'metrics',
  'analytics',
  'ownershipControls',
  'publicAccessBlock',
  'attributes',
  'versions',
];

/** A request, taken apart and verified. */
interface Call {
  request: IncomingMessage;
  response: ServerResponse;
  method: string;
  bucket: string;
  key: string;
  query: URLSearchParams;
  verified: Verified;
}

function decodePath(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    throw s3Errors.invalidRequest('The path has a malformed escape.');
  }
}

/** One value of a header that may be absent. */
function header(request: IncomingMessage, name: string): string | undefined {
  const value = request.headers[name];
  return typeof value === 'string' ? value : value?.join(',');
}

function numberHeader(request: IncomingMessage, name: string): number | undefined {
  const value = header(request, name);
  if (value === undefined) return undefined;
  if (!/^\d+$/.test(value)) throw s3Errors.invalidArgument(`${name} must be a number.`);
  return Number(value);
}

function attributesOf(request: IncomingMessage): ObjectAttributes {
  const entries = Object.keys(request.headers).filter((name) => name.startsWith('x-amz-meta-'));
  // Node reads header bytes as Latin-1, and writes them so: what came in goes out.
  const metadata = Object.fromEntries(
    entries.map((name) => [name.slice('x-amz-meta-'.length), header(request, name)!]),
  );
  const encodings = (header(request, 'content-encoding') ?? '').split(',').map((item) => item.trim());
  const contentEncoding = encodings.filter((item) => item && item !== 'aws-chunked').join(',');
  return {
    metadata,
    contentType: header(request, 'content-type') ?? 'binary/octet-stream',
    ...(contentEncoding && { contentEncoding }),
  };
}

function md5Header(request: IncomingMessage): string | undefined {
  const md5 = header(request, 'content-md5');
  if (md5 !== undefined && Buffer.from(md5, 'base64').length !== 16) throw s3Errors.invalidDigest();
  return md5;
}

/** The content that a request brings, decoded, and what it has to turn out to be. */
function bodyOf({ request, verified }: Call): { body: Readable; expected: Expectation } {
  const checksums: Expectation['checksums'] = {};
  for (const name of Object.keys(CHECKSUMS) as ChecksumName[]) {
    const value = header(request, `x-amz-checksum-${name}`);
    if (value !== undefined) checksums[name] = value;
  }
  const md5 = md5Header(request);
  const length = numberHeader(
    request,
    verified.payload.startsWith('STREAMING-') ? 'x-amz-decoded-content-length' : 'content-length',
  );
  const common = { ...(length !== undefined && { length }), ...(md5 !== undefined && { md5 }), checksums };
  if (!verified.payload.startsWith('STREAMING-')) {
    const sha256 = /^[0-9a-f]{64}$/.test(verified.payload) ? verified.payload : undefined;
    return { body: request, expected: { ...common, ...(sha256 !== undefined && { sha256 }) } };
  }
  const body = new ChunkedBody(verified.payload.includes('HMAC') ? verified.chunks : null);
  for (const trailer of (header(request, 'x-amz-trailer') ?? '').split(',').map((name) => name.trim().toLowerCase())) {
    const name = trailer.replace('x-amz-checksum-', '') as ChecksumName;
    if (name in CHECKSUMS) checksums[name] = () => body.trailers.get(trailer);
  }
  // A client that goes away destroys the request, and pipeline the decoder with it; the reader of the decoder hears of it.
  pipeline(request, body).catch(() => {});
  return { body, expected: common };
}

async function readXmlBody(call: Call, root: string): Promise<Record<string, unknown>> {
  const pieces: Buffer[] = [];
  let size = 0;
  for await (const piece of bodyOf(call).body as AsyncIterable<Buffer>) {
    if ((size += piece.length) > XML_LIMIT) throw s3Errors.entityTooLarge();
    pieces.push(piece);
  }
  return parseXml(Buffer.concat(pieces).toString('utf8'), root);
}

function preconditionOf(request: IncomingMessage): Precondition {
  const ifMatch = header(request, 'if-match');
  const ifNoneMatch = header(request, 'if-none-match');
  return { ...(ifMatch !== undefined && { ifMatch }), ...(ifNoneMatch !== undefined && { ifNoneMatch }) };
}

/** The range that a header asks for, `end` included; null for all. RFC 9110 section 14.2. */
function rangeOf(text: string | undefined, size: number): { start: number; end: number } | null {
  const match = /^bytes=(\d*)-(\d*)$/.exec(text ?? '');
  if (!match || (!match[1] && !match[2])) return null;
  const start = match[1] ? Number(match[1]) : Math.max(0, size - Number(match[2]));
  const end = match[1] && match[2] ? Math.min(Number(match[2]), size - 1) : size - 1;
  if (match[1] && match[2] && Number(match[2]) < start) return null;
  if (start >= size) throw s3Errors.invalidRange();
  return { start, end };
}

/** Conditions of a read, in the order of RFC 9110 section 13.2.2. */
function checkReadConditions(request: IncomingMessage, object: StoredObject): void {
  const seconds = (text: string) => Math.floor(Date.parse(text) / 1000);
  const ifMatch = header(request, 'if-match');
  const unmodified = header(request, 'if-unmodified-since');
  if (
    ifMatch !== undefined
      ? !matches(ifMatch, object.etag)
      : unmodified !== undefined && seconds(object.modified) > seconds(unmodified)
  )
    throw s3Errors.preconditionFailed();
  const ifNoneMatch = header(request, 'if-none-match');
  const modified = header(request, 'if-modified-since');
  if (
    ifNoneMatch !== undefined
      ? matches(ifNoneMatch, object.etag)
      : modified !== undefined && seconds(object.modified) <= seconds(modified)
  )
    throw s3Errors.notModified();
}

class S3Routes {
  constructor(
    private readonly store: ObjectStore,
    private readonly credentials: S3ServerOptions['credentials'],
    private readonly log: NonNullable<S3ServerOptions['log']>,
  ) {}

  /** Answers a request, whatever comes. */
  async answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    response.setHeader('server', 'ims-embedded-s3');
    try {
      await this.dispatch(this.read(request, response));
    } catch (error) {
      this.fail(request, response, error);
    }
  }

  private read(request: IncomingMessage, response: ServerResponse): Call {
    const url = request.url ?? '/';
    const mark = url.indexOf('?');
    const rawPath = mark < 0 ? url : url.slice(0, mark);
    // A plus sign is itself in S3 queries, not a space.
    const query = new URLSearchParams(mark < 0 ? '' : url.slice(mark + 1).replaceAll('+', '%2B'));
    const method = request.method ?? 'GET';
    const verified = verifySignature({ method, rawPath, query, headers: request.headers }, this.credentials);
    const slash = rawPath.indexOf('/', 1);
    const bucket = decodePath(rawPath.slice(1, slash < 0 ? undefined : slash));
    const key = slash < 0 ? '' : decodePath(rawPath.slice(slash + 1));
    if (Buffer.byteLength(key) > KEY_LIMIT) throw s3Errors.keyTooLong();
    return { request, response, method, bucket, key, query, verified };
  }

  private fail(request: IncomingMessage, response: ServerResponse, error: unknown): void {
    const isGone = request.destroyed && !request.complete;
    const known = error instanceof S3Error ? error : isGone ? s3Errors.incompleteBody() : null;
    if (!known) this.log('the embedded store failed', { method: request.method, reason: (error as Error).message });
    const { status, code, message } = known ?? s3Errors.internal();
    if (response.headersSent || response.destroyed) return void response.destroy();
    // What is left of the body would be taken for the next request.
    if (!request.complete) response.setHeader('connection', 'close');
    if (request.method === 'HEAD' || status === 304) return void response.writeHead(status).end();
    this.sendXml(
      response,
      'Error',
      { Code: code, Message: message, Resource: (request.url ?? '').split('?')[0] },
      status,
    );
  }

  private sendXml(response: ServerResponse, root: string, content: { [name: string]: XmlContent }, status = 200): void {
    const body = xmlDocument(root, content);
    response.writeHead(status, { 'content-type': 'application/xml', 'content-length': body.length }).end(body);
  }

  private async dispatch(call: Call): Promise<void> {
    const unsupported = UNSUPPORTED.find((name) => call.query.has(name));
    if (unsupported) throw s3Errors.notImplemented(unsupported);
    if (!call.bucket) return this.listBuckets(call);
    await (call.key ? this.dispatchObject(call) : this.dispatchBucket(call));
  }

  private listBuckets({ method, response }: Call): void {
    if (method !== 'GET' && method !== 'HEAD') throw s3Errors.methodNotAllowed();
    const buckets = this.store.bucketNames().map((Name) => ({ Name, CreationDate: new Date(0).toISOString() }));
    this.sendXml(response, 'ListAllMyBucketsResult', { Owner: OWNER, Buckets: { Bucket: buckets } });
  }

  // Buckets

  private async dispatchBucket(call: Call): Promise<void> {
    const { method, query, bucket, response } = call;
    if (method === 'PUT') return this.createBucket(call);
    this.store.objectsOf(bucket);
    if (method === 'HEAD') return void response.writeHead(200).end();
    if (method === 'DELETE') return this.deleteBucket(call);
    if (method === 'POST' && query.has('delete')) return this.deleteObjects(call);
    if (method !== 'GET') throw s3Errors.methodNotAllowed();
    if (query.has('location')) return this.sendXml(response, 'LocationConstraint', {});
    if (query.has('versioning')) return this.sendXml(response, 'VersioningConfiguration', {});
    if (query.has('acl')) return this.sendAcl(call);
    if (query.has('policy')) throw new S3Error(404, 'NoSuchBucketPolicy', 'The bucket has no policy.');
    return query.has('uploads') ? this.listUploads(call) : this.listObjects(call);
  }

  private async createBucket(call: Call): Promise<void> {
    call.request.resume();
    // Access rules are the same for all: requests to set them are taken and change nothing.
    if (!call.query.has('acl')) await this.store.createBucket(call.bucket);
    call.response.writeHead(200, { location: `/${call.bucket}`, 'content-length': 0 }).end();
  }

  private async deleteBucket({ bucket, response }: Call): Promise<void> {
    await this.store.deleteBucket(bucket);
    response.writeHead(204).end();
  }

  private sendAcl({ response }: Call): void {
    const grant = { Grantee: OWNER, Permission: 'FULL_CONTROL' };
    this.sendXml(response, 'AccessControlPolicy', { Owner: OWNER, AccessControlList: { Grant: [grant] } });
  }

  private async deleteObjects(call: Call): Promise<void> {
    const body = await readXmlBody(call, 'Delete');
    const keys = ((body['Object'] as { Key?: unknown }[] | undefined) ?? []).map(({ Key }) => String(Key ?? ''));
    if (!keys.length || keys.length > PAGE_LIMIT || keys.includes('')) throw s3Errors.malformedXml();
    for (const key of keys) await this.store.delete(call.bucket, key);
    const deleted = body['Quiet'] === 'true' ? [] : keys.map((Key) => ({ Key }));
    this.sendXml(call.response, 'DeleteResult', { Deleted: deleted });
  }

  private pageLimit(query: URLSearchParams, name: string): number {
    const limit = Number(query.get(name) ?? PAGE_LIMIT);
    if (!Number.isInteger(limit) || limit < 0) throw s3Errors.invalidArgument(`${name} must be a number from 0.`);
    return Math.min(limit, PAGE_LIMIT);
  }

  private listObjects({ bucket, query, response }: Call): void {
    const isV2 = query.get('list-type') === '2';
    const token = query.get('continuation-token');
    const after = token
      ? Buffer.from(token, 'base64url').toString()
      : (query.get(isV2 ? 'start-after' : 'marker') ?? '');
    const prefix = query.get('prefix') ?? '';
    const delimiter = query.get('delimiter') ?? '';
    const limit = this.pageLimit(query, 'max-keys');
    const { keys, commonPrefixes, next } = listKeys(this.store.keysOf(bucket), { prefix, delimiter, after, limit });
    const isEncoded = query.get('encoding-type') === 'url';
    const name = (text: string) => (isEncoded ? awsEncode(text).replaceAll('%2F', '/') : text);
    const objects = this.store.objectsOf(bucket);
    this.sendXml(response, 'ListBucketResult', {
      Name: bucket,
      Prefix: name(prefix),
      ...(delimiter && { Delimiter: name(delimiter) }),
      ...(isEncoded && { EncodingType: 'url' }),
      MaxKeys: limit,
      ...(isV2 ? { KeyCount: keys.length + commonPrefixes.length, ContinuationToken: token } : { Marker: name(after) }),
      IsTruncated: next !== null,
      ...(next !== null &&
        (isV2 ? { NextContinuationToken: Buffer.from(next).toString('base64url') } : { NextMarker: name(next) })),
      Contents: keys.map((key) => {
        const { modified, etag, size } = objects.get(key)!;
        return {
          Key: name(key),
          LastModified: modified,
          ETag: `"${etag}"`,
          Size: size,
          StorageClass: 'STANDARD',
          Owner: OWNER,
        };
      }),
      CommonPrefixes: commonPrefixes.map((common) => ({ Prefix: name(common) })),
    });
  }

  private listUploads({ bucket, query, response }: Call): void {
    const prefix = query.get('prefix') ?? '';
    const limit = this.pageLimit(query, 'max-uploads');
    const [keyMarker, idMarker] = [query.get('key-marker') ?? '', query.get('upload-id-marker') ?? ''];
    const isAfter = ({ key, id }: Upload) => {
      const order = Buffer.compare(Buffer.from(key), Buffer.from(keyMarker));
      return order > 0 || (order === 0 && idMarker !== '' && id > idMarker);
    };
    const uploads = this.store
      .uploadsOf(bucket)
      .filter((upload) => upload.key.startsWith(prefix) && (!keyMarker || isAfter(upload)));
    const page = uploads.slice(0, limit);
    const last = uploads.length > page.length ? page.at(-1) : undefined;
    this.sendXml(response, 'ListMultipartUploadsResult', {
      Bucket: bucket,
      Prefix: prefix,
      KeyMarker: keyMarker,
      UploadIdMarker: idMarker,
      NextKeyMarker: last?.key,
      NextUploadIdMarker: last?.id,
      MaxUploads: limit,
      IsTruncated: last !== undefined,
      Upload: page.map(({ key, id, initiated }) => ({
        Key: key,
        UploadId: id,
        Initiator: OWNER,
        Owner: OWNER,
        StorageClass: 'STANDARD',
        Initiated: initiated,
      })),
    });
  }

  // Objects

  private async dispatchObject(call: Call): Promise<void> {
    const { method, query, request } = call;
    const uploadId = query.get('uploadId');
    this.store.objectsOf(call.bucket);
    if (query.has('acl')) return this.objectAcl(call);
    if (uploadId !== null) return this.dispatchUpload(call, this.store.upload(call.bucket, call.key, uploadId));
    if (method === 'POST' && query.has('uploads')) return this.createUpload(call);
    if (method === 'GET' || method === 'HEAD') return this.sendObject(call);
    if (method === 'DELETE') return this.deleteObject(call);
    if (method !== 'PUT') throw s3Errors.methodNotAllowed();
    return header(request, 'x-amz-copy-source') === undefined ? this.putObject(call) : this.copyObject(call);
  }

  private objectAcl(call: Call): void {
    this.store.get(call.bucket, call.key);
    if (call.method === 'GET') return this.sendAcl(call);
    if (call.method !== 'PUT') throw s3Errors.methodNotAllowed();
    call.request.resume();
    call.response.writeHead(200, { 'content-length': 0 }).end();
  }

  private async putObject(call: Call): Promise<void> {
    const { body, expected } = bodyOf(call);
    const object = await this.store.put(
      call.bucket,
      call.key,
      attributesOf(call.request),
      body,
      expected,
      preconditionOf(call.request),
    );
    call.response
      .writeHead(200, { etag: `"${object.etag}"`, ...checksumHeaders(object.checksums), 'content-length': 0 })
      .end();
  }

  private async deleteObject({ bucket, key, response }: Call): Promise<void> {
    await this.store.delete(bucket, key);
    response.writeHead(204).end();
  }

  private sourceOf({ request }: Call): StoredObject {
    const source = decodePath(
      header(request, 'x-amz-copy-source')!
        .replace(/^\//, '')
        .replace(/\?versionId=.*$/, ''),
    );
    const slash = source.indexOf('/');
    if (slash < 1) throw s3Errors.invalidArgument('x-amz-copy-source must be <bucket>/<key>.');
    const object = this.store.get(source.slice(0, slash), source.slice(slash + 1));
    const ifMatch = header(request, 'x-amz-copy-source-if-match');
    const ifNoneMatch = header(request, 'x-amz-copy-source-if-none-match');
    if (
      (ifMatch !== undefined && !matches(ifMatch, object.etag)) ||
      (ifNoneMatch !== undefined && matches(ifNoneMatch, object.etag))
    )
      throw s3Errors.preconditionFailed();
    return object;
  }

  private async copyObject(call: Call): Promise<void> {
    const source = this.sourceOf(call);
    call.request.resume();
    const isReplaced = header(call.request, 'x-amz-metadata-directive') === 'REPLACE';
    const { metadata, contentType, contentEncoding } = source;
    const attributes = isReplaced
      ? attributesOf(call.request)
      : { metadata, contentType, ...(contentEncoding && { contentEncoding }) };
    const { etag, modified } = await this.store.copy(source, call.bucket, call.key, attributes);
    this.sendXml(call.response, 'CopyObjectResult', { LastModified: modified, ETag: `"${etag}"` });
  }

  private async sendObject({ request, response, method, bucket, key, query }: Call): Promise<void> {
    const object = this.store.get(bucket, key);
    checkReadConditions(request, object);
    const range = rangeOf(header(request, 'range'), object.size);
    const length = range ? range.end - range.start + 1 : object.size;
    response.writeHead(range ? 206 : 200, {
      ...Object.fromEntries(Object.entries(object.metadata).map(([name, value]) => [`x-amz-meta-${name}`, value])),
      ...(object.contentEncoding && { 'content-encoding': object.contentEncoding }),
      ...overrides(query),
      ...(!range && header(request, 'x-amz-checksum-mode') === 'ENABLED' && checksumHeaders(object.checksums)),
      ...(range && { 'content-range': `bytes ${range.start}-${range.end}/${object.size}` }),
      'content-type': query.get('response-content-type') ?? object.contentType,
      'content-length': length,
      'accept-ranges': 'bytes',
      etag: `"${object.etag}"`,
      'last-modified': new Date(object.modified).toUTCString(),
    });
    if (method === 'HEAD' || !length) return void response.end();
    const segments = range ? sliceSegments(object.segments, range.start, range.end) : object.segments;
    // A client that goes away in the middle is no failure of the store.
    await pipeline(this.store.read(segments), response).catch(() => response.destroy());
  }

  // Uploads in parts

  private async createUpload(call: Call): Promise<void> {
    call.request.resume();
    const { id, bucket, key } = await this.store.createUpload(call.bucket, call.key, attributesOf(call.request));
    this.sendXml(call.response, 'InitiateMultipartUploadResult', { Bucket: bucket, Key: key, UploadId: id });
  }

  private async dispatchUpload(call: Call, upload: Upload): Promise<void> {
    if (call.method === 'PUT') return this.putPart(call, upload);
    if (call.method === 'POST') return this.completeUpload(call, upload);
    if (call.method === 'GET') return this.listParts(call, upload);
    if (call.method !== 'DELETE') throw s3Errors.methodNotAllowed();
    await this.store.abortUpload(upload);
    call.response.writeHead(204).end();
  }

  private async putPart(call: Call, upload: Upload): Promise<void> {
    const number = Number(call.query.get('partNumber'));
    if (header(call.request, 'x-amz-copy-source') !== undefined) return this.copyPart(call, upload, number);
    const { body, expected } = bodyOf(call);
    const { part, checksums } = await this.store.putPart(upload, number, body, expected);
    call.response.writeHead(200, { etag: `"${part.md5}"`, ...checksumHeaders(checksums), 'content-length': 0 }).end();
  }

  private async copyPart(call: Call, upload: Upload, number: number): Promise<void> {
    const source = this.sourceOf(call);
    call.request.resume();
    const text = header(call.request, 'x-amz-copy-source-range');
    const range = text === undefined ? { start: 0, end: source.size - 1 } : rangeOf(text, source.size);
    if (!range || (text !== undefined && Number(text.split('-')[1]) >= source.size)) throw s3Errors.invalidRange();
    const length = range.end - range.start + 1;
    const { part } = await this.store.putPart(
      upload,
      number,
      this.store.read(sliceSegments(source.segments, range.start, range.end)),
      { length },
    );
    this.sendXml(call.response, 'CopyPartResult', { LastModified: part.modified, ETag: `"${part.md5}"` });
  }

  private async completeUpload(call: Call, upload: Upload): Promise<void> {
    const body = await readXmlBody(call, 'CompleteMultipartUpload');
    const named = ((body['Part'] as { PartNumber?: unknown; ETag?: unknown }[] | undefined) ?? []).map(
      ({ PartNumber, ETag }) => ({
        number: Number(PartNumber),
        etag: String(ETag ?? ''),
      }),
    );
    const { etag } = await this.store.completeUpload(upload, named, preconditionOf(call.request));
    const Location = `http://${header(call.request, 'host')}/${awsEncode(call.bucket)}/${awsEncode(call.key)}`;
    this.sendXml(call.response, 'CompleteMultipartUploadResult', {
      Location,
      Bucket: call.bucket,
      Key: call.key,
      ETag: `"${etag}"`,
    });
  }

  private listParts({ query, response }: Call, upload: Upload): void {
    const limit = this.pageLimit(query, 'max-parts');
    const after = Number(query.get('part-number-marker') ?? 0);
    const parts = [...upload.parts.values()]
      .filter(({ number }) => number > after)
      .toSorted((left, right) => left.number - right.number);
    const page = parts.slice(0, limit);
    const isTruncated = parts.length > page.length;
    this.sendXml(response, 'ListPartsResult', {
      Bucket: upload.bucket,
      Key: upload.key,
      UploadId: upload.id,
      PartNumberMarker: after,
      NextPartNumberMarker: isTruncated ? page.at(-1)?.number : undefined,
      MaxParts: limit,
      IsTruncated: isTruncated,
      Initiator: OWNER,
      Owner: OWNER,
      StorageClass: 'STANDARD',
      Part: page.map(({ number, modified, md5, size }) => ({
        PartNumber: number,
        LastModified: modified,
        ETag: `"${md5}"`,
        Size: size,
      })),
    });
  }
}

function checksumHeaders(checksums: StoredObject['checksums']): Record<string, string> {
  return Object.fromEntries(Object.entries(checksums).map(([name, value]) => [`x-amz-checksum-${name}`, value]));
}

/** Headers that a presigned url sets for the answer. */
function overrides(query: URLSearchParams): Record<string, string> {
  const names = ['cache-control', 'content-disposition', 'content-encoding', 'content-language', 'expires'];
  return Object.fromEntries(
    names.map((name) => [name, query.get(`response-${name}`)]).filter(([, value]) => value !== null) as [
      string,
      string,
    ][],
  );
}

/** Seconds in a week. */
const WEEK = 7 * 24 * 3600;

async function removeStaleUploads(store: ObjectStore, seconds: number): Promise<void> {
  for (const upload of store.uploadsBefore(new Date(Date.now() - seconds * 1000)))
    await store.abortUpload(upload).catch(() => {});
}

async function listen(server: Server, port: number, host: string): Promise<number> {
  await new Promise<void>((resolve, reject) => {
    server.once('error', (error: NodeJS.ErrnoException) =>
      reject(
        error.code === 'EADDRINUSE'
          ? new Error(
              `the port ${port} of the embedded S3 store is in use: set EMBEDDED_S3_PORT to a free one, or to 0`,
            )
          : error,
      ),
    );
    server.listen(port, host, resolve);
  });
  return (server.address() as AddressInfo).port;
}

/**
 * Starts an S3 server on a directory of this machine.
 * @throws Error where the directory or the port is in use
 */
export async function startS3Server(options: S3ServerOptions): Promise<S3Server> {
  const { host = '127.0.0.1', port = 0, reserveBytes = 0, staleUploadSeconds = WEEK, log = () => {} } = options;
  const directory = path.resolve(options.directory);
  await mkdir(directory, { recursive: true, mode: 0o700 });
  const unlock = await lockDirectory(directory, path.join(directory, 'lock'));
  try {
    const store = new ObjectStore(directory, reserveBytes);
    await store.open();
    const routes = new S3Routes(store, options.credentials, log);
    const server = http.createServer((request, response) => void routes.answer(request, response));
    // A large object on a slow line takes longer than the five minutes that node gives a request.
    server.requestTimeout = 0;
    const boundPort = await listen(server, port, host);
    const timer = setInterval(() => void removeStaleUploads(store, staleUploadSeconds), 3_600_000);
    timer.unref();
    await removeStaleUploads(store, staleUploadSeconds);
    return {
      endpoint: `http://${host}:${boundPort}`,
      port: boundPort,
      localFile: async (bucket, key) => {
        try {
          return store.fileOf(store.get(bucket, key));
        } catch {
          return null;
        }
      },
      close: async () => {
        clearInterval(timer);
        server.closeAllConnections();
        await new Promise((resolve) => server.close(resolve));
        await unlock();
      },
    };
  } catch (error) {
    await unlock();
    throw error;
  }
}
