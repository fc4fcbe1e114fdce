import type { IncomingMessage, ServerResponse } from 'node:http';
import { finished } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { listKeys } from './listing.js';
import type { ObjectStore, StoredObject, Upload } from './object-store.js';
import { asS3Error, type S3Error, s3Errors } from './s3-error.js';
import {
  attributesOf,
  bodyOf,
  type Call,
  checkCopyConditions,
  checkReadConditions,
  copyRangeOf,
  decodePath,
  header,
  preconditionOf,
  rangeOf,
  readCall,
  readXmlBody,
  sendable,
} from './s3-request.js';
import { type Segment, sliceSegments } from './segments.js';
import { awsEncode } from './signature.js';
import { type XmlContent, xmlDocument } from './xml.js';

const PAGE_LIMIT = 1000;
const OWNER = { ID: 'ims', DisplayName: 'ims' };
const BUCKET_SETTINGS = ['acl', 'location', 'policy', 'versioning'] as const;
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

/** Answers the requests of S3 clients from an object store. */
export class S3Routes {
  constructor(
    private readonly store: ObjectStore,
    private readonly credentials: { accessKey: string; secretKey: string },
    private readonly log: (message: string, facts?: Record<string, unknown>) => void,
  ) {}

  /** Answers a request, whatever comes. Never rejects. */
  async answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    response.setHeader('server', 'ims-embedded-s3');
    try {
      await this.dispatch(readCall(request, response, this.credentials));
    } catch (error) {
      this.fail(request, response, error);
    }
  }

  private fail(request: IncomingMessage, response: ServerResponse, error: unknown): void {
    const isGone = request.destroyed && !request.complete;
    const known = asS3Error(error) ?? (isGone ? s3Errors.incompleteBody() : null);
    if (!known) this.log('the embedded store failed', { method: request.method, reason: (error as Error).message });
    if (response.headersSent || response.destroyed) return void response.destroy();
    this.sendError(request, response, known ?? s3Errors.internal());
  }

  private sendError(request: IncomingMessage, response: ServerResponse, error: S3Error): void {
    const { method, url = '' } = request;
    const { status, code, message } = error;
    if (method === 'HEAD' || status === 304) return void response.writeHead(status).end();
    const body = xmlDocument('Error', { Code: code, Message: message, Resource: url.split('?')[0] });
    response.writeHead(status, { 'content-type': 'application/xml', 'content-length': body.length }).write(body);
    drain(request, () => response.end());
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
    const setting = BUCKET_SETTINGS.find((name) => query.has(name));
    if (setting) return this.bucketSetting(call, setting);
    if (method === 'PUT') return this.createBucket(call);
    this.store.objectsOf(bucket);
    if (method === 'HEAD') return void response.writeHead(200).end();
    if (method === 'DELETE') return this.deleteBucket(call);
    if (method === 'POST' && query.has('delete')) return this.deleteObjects(call);
    if (method !== 'GET') throw s3Errors.methodNotAllowed();
    return query.has('uploads') ? this.listUploads(call) : this.listObjects(call);
  }

  /** Settings of a bucket have one value each. Access rules are the same for all: a request to set them is taken and changes nothing. */
  private bucketSetting(call: Call, setting: (typeof BUCKET_SETTINGS)[number]): void {
    const { method, bucket, request, response } = call;
    this.store.objectsOf(bucket);
    if (method === 'PUT' && setting === 'acl') {
      request.resume();
      return void response.writeHead(200, { 'content-length': 0 }).end();
    }
    if (method !== 'GET') throw s3Errors.notImplemented(`changes of ${setting}`);
    if (setting === 'acl') return this.sendAcl(call);
    if (setting === 'policy') throw s3Errors.noSuchPolicy();
    this.sendXml(response, setting === 'location' ? 'LocationConstraint' : 'VersioningConfiguration', {});
  }

  private async createBucket(call: Call): Promise<void> {
    call.request.resume();
    await this.store.createBucket(call.bucket);
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
    const named = elementsOf(body['Object']);
    const keys = named.map(({ Key }) => Key);
    if (!keys.length || keys.length > PAGE_LIMIT || !keys.every((key) => typeof key === 'string' && key))
      throw s3Errors.malformedXml();
    const errors: XmlContent[] = [];
    const deleted: XmlContent[] = [];
    for (const { Key, ETag, VersionId } of named as Record<string, string>[]) {
      try {
        checkVersion(VersionId ?? null);
        await this.store.delete(call.bucket, Key!, ETag === undefined ? {} : { ifMatch: ETag });
        deleted.push({ Key });
      } catch (error) {
        const { code, message } = asS3Error(error) ?? s3Errors.internal();
        errors.push({ Key, Code: code, Message: message });
      }
    }
    this.sendXml(call.response, 'DeleteResult', { Deleted: body['Quiet'] === 'true' ? [] : deleted, Error: errors });
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
    const { name, type } = encodingOf(query);
    const objects = this.store.objectsOf(bucket);
    this.sendXml(response, 'ListBucketResult', {
      Name: bucket,
      Prefix: name(prefix),
      ...(delimiter && { Delimiter: name(delimiter) }),
      EncodingType: type,
      MaxKeys: limit,
      ...(isV2
        ? {
            KeyCount: keys.length + commonPrefixes.length,
            ContinuationToken: token,
            StartAfter: query.has('start-after') ? name(query.get('start-after')!) : undefined,
          }
        : { Marker: name(after) }),
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
    if (query.has('delimiter')) throw s3Errors.notImplemented('a delimiter between uploads');
    const prefix = query.get('prefix') ?? '';
    const { name, type } = encodingOf(query);
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
      Prefix: name(prefix),
      EncodingType: type,
      KeyMarker: name(keyMarker),
      UploadIdMarker: idMarker,
      NextKeyMarker: last && name(last.key),
      NextUploadIdMarker: last?.id,
      MaxUploads: limit,
      IsTruncated: last !== undefined,
      Upload: page.map(({ key, id, initiated }) => ({
        Key: name(key),
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
    checkVersion(query.get('versionId'));
    if (query.has('acl')) return this.objectAcl(call);
    if (uploadId !== null) return this.dispatchUpload(call, this.store.upload(call.bucket, call.key, uploadId));
    if (method === 'POST' && query.has('uploads')) return this.createUpload(call);
    // Parts of a finished object are not known any more.
    if (query.has('partNumber')) throw s3Errors.notImplemented('partNumber without uploadId');
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
    const { bucket, key, request, response } = call;
    const attributes = attributesOf(call);
    const { body, expected } = bodyOf(call);
    const object = await this.store.put(bucket, key, attributes, body, expected, preconditionOf(request));
    response
      .writeHead(200, { etag: `"${object.etag}"`, ...checksumHeaders(object.checksums), 'content-length': 0 })
      .end();
  }

  private async deleteObject({ bucket, key, request, response }: Call): Promise<void> {
    await this.store.delete(bucket, key, preconditionOf(request));
    response.writeHead(204).end();
  }

  private sourceOf({ request }: Call): StoredObject & { bucket: string } {
    const [location, version] = header(request, 'x-amz-copy-source')!.replace(/^\//, '').split('?versionId=');
    checkVersion(version ?? null);
    const source = decodePath(location!);
    const slash = source.indexOf('/');
    if (slash < 1) throw s3Errors.invalidArgument('x-amz-copy-source must be <bucket>/<key>.');
    const bucket = source.slice(0, slash);
    const object = this.store.get(bucket, source.slice(slash + 1));
    checkCopyConditions(request, object);
    return { ...object, bucket };
  }

  private async copyObject(call: Call): Promise<void> {
    const { bucket, key, request, response } = call;
    const source = this.sourceOf(call);
    const directive = header(request, 'x-amz-metadata-directive') ?? 'COPY';
    if (directive !== 'COPY' && directive !== 'REPLACE')
      throw s3Errors.invalidArgument('x-amz-metadata-directive must be COPY or REPLACE.');
    if (directive === 'COPY' && source.bucket === bucket && source.key === key)
      throw s3Errors.invalidRequest('A copy of an object to itself must replace its metadata.');
    request.resume();
    const attributes = directive === 'REPLACE' ? attributesOf(call) : source;
    const { etag, modified } = await this.store.copy(source, bucket, key, attributes, preconditionOf(request));
    this.sendXml(response, 'CopyObjectResult', { LastModified: modified, ETag: `"${etag}"` });
  }

  private async sendObject({ request, response, method, bucket, key, query }: Call): Promise<void> {
    const object = this.store.get(bucket, key);
    const { etag, modified, metadata, size } = object;
    response.setHeader('etag', `"${etag}"`).setHeader('last-modified', new Date(modified).toUTCString());
    checkReadConditions(request, object);
    const changed = overrides(query);
    const range = rangeOf(request, object);
    const length = range ? range.end - range.start + 1 : size;
    response.writeHead(range ? 206 : 200, {
      ...Object.fromEntries(Object.entries(metadata).map(([name, value]) => [`x-amz-meta-${name}`, value])),
      ...object.headers,
      ...changed,
      ...(!range && header(request, 'x-amz-checksum-mode') === 'ENABLED' && checksumHeaders(object.checksums)),
      ...(range && { 'content-range': `bytes ${range.start}-${range.end}/${size}` }),
      'content-length': length,
      'accept-ranges': 'bytes',
    });
    if (method === 'HEAD' || !length) return void response.end();
    const segments = range ? sliceSegments(object.segments, range.start, range.end) : object.segments;
    await this.sendContent(segments, response);
  }

  private async sendContent(segments: readonly Segment[], response: ServerResponse): Promise<void> {
    try {
      await pipeline(this.store.read(segments), response);
    } catch (error) {
      // A client that goes away in the middle is no failure of the store.
      if ((error as NodeJS.ErrnoException).code !== 'ERR_STREAM_PREMATURE_CLOSE') throw error;
    }
  }

  // Uploads in parts

  private async createUpload(call: Call): Promise<void> {
    call.request.resume();
    const { id, bucket, key } = await this.store.createUpload(call.bucket, call.key, attributesOf(call));
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
    const { start, end } = copyRangeOf(call.request, source);
    const content = this.store.read(sliceSegments(source.segments, start, end));
    try {
      const { part } = await this.store.putPart(upload, number, content, { length: end - start + 1 });
      this.sendXml(call.response, 'CopyPartResult', { LastModified: part.modified, ETag: `"${part.md5}"` });
    } finally {
      content.destroy();
    }
  }

  private async completeUpload(call: Call, upload: Upload): Promise<void> {
    const body = await readXmlBody(call, 'CompleteMultipartUpload');
    const named = elementsOf(body['Part']).map(({ PartNumber, ETag }) => ({
      number: Number(PartNumber),
      etag: String(ETag ?? ''),
    }));
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

/** Headers that a request sets for its answer, as presigned urls do. */
function overrides(query: URLSearchParams): Record<string, string> {
  const names = [
    'cache-control',
    'content-disposition',
    'content-encoding',
    'content-language',
    'content-type',
    'expires',
  ];
  return Object.fromEntries(
    names
      .filter((name) => query.has(`response-${name}`))
      .map((name) => [name, sendable(`response-${name}`, query.get(`response-${name}`)!)]),
  );
}

/** How names stand in a list: as they are, or escaped, as XML cannot hold all of them. */
function encodingOf(query: URLSearchParams): { name: (text: string) => string; type: string | undefined } {
  const type = query.get('encoding-type');
  if (type === null) return { name: (text) => text, type: undefined };
  if (type !== 'url') throw s3Errors.invalidArgument('encoding-type must be url.');
  return { name: (text) => awsEncode(text).replaceAll('%2F', '/'), type };
}

/** The elements of a list in a body. */
function elementsOf(list: unknown): Record<string, unknown>[] {
  const elements = (list ?? []) as unknown[];
  if (!elements.every((element) => typeof element === 'object' && element !== null)) throw s3Errors.malformedXml();
  return elements as Record<string, unknown>[];
}

/** Objects have one version, which is called null. */
function checkVersion(version: string | null): void {
  if (version !== null && version !== 'null') throw s3Errors.noSuchVersion();
}

/** Milliseconds that a client may go on sending a body that is refused. */
const DRAIN_LIMIT = 30_000;

/**
 * Takes the rest of a body that nobody wants. A connection that is closed while the client sends tells it of a broken line, not of the answer
 * that was sent to it.
 */
function drain(request: IncomingMessage, done: () => void): void {
  request.unpipe();
  request.resume();
  const timer = setTimeout(() => request.destroy(), DRAIN_LIMIT).unref();
  finished(request, () => {
    clearTimeout(timer);
    done();
  });
}
