import type { IncomingMessage, ServerResponse } from 'node:http';
import { finished } from 'node:stream';
import { CHECKSUMS, type ChecksumName } from './checksums.js';
import { ChunkedBody } from './chunked-body.js';
import { ContentCheck, type Expectation } from './content-check.js';
import { matches, type ObjectAttributes, type Precondition, type StoredObject } from './object-store.js';
import { s3Errors } from './s3-error.js';
import { type Verified, verifySignature } from './signature.js';
import { parseXml } from './xml.js';

/** Bytes of a body that is XML, at most. */
const XML_LIMIT = 4 * 1024 * 1024;
/** Bytes. */
const KEY_LIMIT = 1024;
/** Headers of an object that its readers get as its writer sent them; `content-type` and `content-encoding` are kept beside these. */
const KEPT_HEADERS = ['cache-control', 'content-disposition', 'content-language', 'expires'];

/** A request, taken apart and verified. */
export interface Call {
  request: IncomingMessage;
  response: ServerResponse;
  method: string;
  bucket: string;
  key: string;
  query: URLSearchParams;
  verified: Verified;
}

/**
 * Takes a request apart.
 * @throws S3Error where it is not signed as it should be, or malformed
 */
export function readCall(
  request: IncomingMessage,
  response: ServerResponse,
  credentials: { accessKey: string; secretKey: string },
): Call {
  const url = request.url ?? '/';
  const mark = url.indexOf('?');
  const rawPath = mark < 0 ? url : url.slice(0, mark);
  // A plus sign is itself in S3 queries, not a space.
  const query = new URLSearchParams(mark < 0 ? '' : url.slice(mark + 1).replaceAll('+', '%2B'));
  const method = request.method ?? 'GET';
  const verified = verifySignature({ method, rawPath, query, headers: request.headers }, credentials);
  const slash = rawPath.indexOf('/', 1);
  const bucket = decodePath(rawPath.slice(1, slash < 0 ? undefined : slash));
  const key = slash < 0 ? '' : decodePath(rawPath.slice(slash + 1));
  if (Buffer.byteLength(key) > KEY_LIMIT) throw s3Errors.keyTooLong();
  return { request, response, method, bucket, key, query, verified };
}

/** @throws S3Error where the text has a malformed escape */
export function decodePath(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    throw s3Errors.invalidRequest('The path has a malformed escape.');
  }
}

export /** One value of a header that may be absent. */
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

/** What a client says of the object that it makes. */
export function attributesOf(call: Call): ObjectAttributes {
  const kept = KEPT_HEADERS.map((name) => [name, header(call.request, name)] as const);
  const encodings = (header(call.request, 'content-encoding') ?? '').split(',').map((item) => item.trim());
  const headers: [string, string | undefined][] = [
    ['content-type', header(call.request, 'content-type') ?? 'binary/octet-stream'],
    // How the body travels is no matter of the object.
    ['content-encoding', encodings.filter((item) => item && item !== 'aws-chunked').join(',') || undefined],
    ...kept.map(([name, value]): [string, string | undefined] => [name, value]),
  ];
  return {
    metadata: metadataOf(call),
    headers: Object.fromEntries(headers.filter(([, value]) => value !== undefined)) as Record<string, string>,
  };
}

/** Metadata stands in headers; a presigned url carries it in its query. */
function metadataOf({ request, query }: Call): Record<string, string> {
  const entries = [...query, ...Object.keys(request.headers).map((name) => [name, header(request, name)!] as const)];
  return Object.fromEntries(
    entries
      .map(([name, value]) => [name.toLowerCase(), value] as const)
      .filter(([name]) => name.startsWith('x-amz-meta-'))
      .map(([name, value]) => [name.slice('x-amz-meta-'.length), sendable(name, value)]),
  );
}

/** A value that a header of an answer can hold. Node reads header bytes as Latin-1, and writes them so: what came in goes out. */
export function sendable(name: string, value: string): string {
  if (/[^\t\x20-\x7e\x80-\xff]/.test(value))
    throw s3Errors.invalidArgument(`${name} has characters that no header holds.`);
  return value;
}

function md5Header(request: IncomingMessage): string | undefined {
  const md5 = header(request, 'content-md5');
  if (md5 !== undefined && Buffer.from(md5, 'base64').length !== 16) throw s3Errors.invalidDigest();
  return md5;
}

/** The content that a request brings, decoded, and what it has to turn out to be. To be read once, or not at all. */
export function bodyOf(call: Call): { body: AsyncIterable<Buffer>; expected: Expectation } {
  const { request, verified } = call;
  const isChunked = verified.payload.startsWith('STREAMING-');
  const lengthHeader = isChunked ? 'x-amz-decoded-content-length' : 'content-length';
  const length = numberHeader(request, lengthHeader);
  if (length === undefined && isChunked) throw s3Errors.missingLength(lengthHeader);
  const md5 = md5Header(request);
  const sha256 = /^[0-9a-f]{64}$/.test(verified.payload) ? verified.payload : undefined;
  const decoder = isChunked ? decoderOf(call) : null;
  const checksums = { ...checksumsOf(request), ...(decoder && announcedChecksums(request, decoder)) };
  const digests = { ...(md5 !== undefined && { md5 }), ...(sha256 !== undefined && { sha256 }), checksums };
  return { body: read(call, decoder), expected: { ...(length !== undefined && { length }), ...digests } };
}

function decoderOf({ verified }: Call): ChunkedBody {
  const verifier = verified.payload.includes('HMAC') ? verified.chunks : null;
  return new ChunkedBody(verifier, verified.payload.endsWith('-TRAILER'));
}

/** Leaves the request as it is where the reader gives up: it is still to be answered. */
async function* read({ request, response }: Call, decoder: ChunkedBody | null): AsyncGenerator<Buffer> {
  // Clients that ask first send the body only now: a refusal before has saved it.
  if (header(request, 'expect') !== undefined) response.writeContinue();
  if (decoder) {
    // Not `pipeline`: where the body is refused that would destroy the request.
    // A reader who has given up hears of no failure any more.
    decoder.on('error', () => {});
    finished(request, (error) => error && decoder.destroy(s3Errors.incompleteBody()));
    request.pipe(decoder);
  }
  yield* (decoder ?? request).iterator({ destroyOnReturn: false }) as AsyncIterable<Buffer>;
}

function checksumsOf(request: IncomingMessage): NonNullable<Expectation['checksums']> {
  const names = Object.keys(CHECKSUMS) as ChecksumName[];
  const entries = names.map((name) => [name, header(request, `x-amz-checksum-${name}`)] as const);
  return Object.fromEntries(entries.filter(([, value]) => value !== undefined));
}

/** Checksums that follow the content. */
function announcedChecksums(request: IncomingMessage, body: ChunkedBody): NonNullable<Expectation['checksums']> {
  const trailers = (header(request, 'x-amz-trailer') ?? '').split(',').map((name) => name.trim().toLowerCase());
  const names = Object.keys(CHECKSUMS) as ChecksumName[];
  const announced = names.filter((name) => trailers.includes(`x-amz-checksum-${name}`));
  return Object.fromEntries(announced.map((name) => [name, () => body.trailer(`x-amz-checksum-${name}`)]));
}

/**
 * The root element of a body that is XML.
 * @throws S3Error where the body is not what was signed, or not XML with this root
 */
export async function readXmlBody(call: Call, root: string): Promise<Record<string, unknown>> {
  const { body, expected } = bodyOf(call);
  const check = new ContentCheck(expected);
  const pieces: Buffer[] = [];
  let size = 0;
  for await (const piece of body) {
    if ((size += piece.length) > XML_LIMIT) throw s3Errors.entityTooLarge();
    check.update(piece);
    pieces.push(piece);
  }
  check.end();
  return parseXml(Buffer.concat(pieces).toString('utf8'), root);
}

/** What a write asks of the object that it replaces. */
export function preconditionOf(request: IncomingMessage): Precondition {
  const ifMatch = header(request, 'if-match');
  const ifNoneMatch = header(request, 'if-none-match');
  return { ...(ifMatch !== undefined && { ifMatch }), ...(ifNoneMatch !== undefined && { ifNoneMatch }) };
}

/** Bytes of an object, `end` included. */
export interface ByteRange {
  start: number;
  end: number;
}

/**
 * The range that a read asks for; null for all. RFC 9110 section 14.2: what is not understood is ignored.
 * @throws S3Error where the object has no such bytes
 */
export function rangeOf(request: IncomingMessage, object: StoredObject): ByteRange | null {
  const { size } = object;
  const match = /^bytes=(\d*)-(\d*)$/.exec(header(request, 'range') ?? '');
  if (!match || (!match[1] && !match[2]) || !isSame(header(request, 'if-range'), object)) return null;
  const start = match[1] ? Number(match[1]) : Math.max(0, size - Number(match[2]));
  const end = match[1] && match[2] ? Math.min(Number(match[2]), size - 1) : size - 1;
  if (match[1] && match[2] && Number(match[2]) < start) return null;
  if (start >= size) throw s3Errors.invalidRange();
  return { start, end };
}

/** Whether `If-Range` lets a range be a range, RFC 9110 section 13.1.5. */
function isSame(ifRange: string | undefined, { etag, modified }: StoredObject): boolean {
  return ifRange === undefined || ifRange === `"${etag}"` || seconds(ifRange) === seconds(modified);
}

/**
 * The range of a source that is copied, all of it where none is named.
 * @throws S3Error where the source has no such bytes
 */
export function copyRangeOf(request: IncomingMessage, { size }: StoredObject): ByteRange {
  const text = header(request, 'x-amz-copy-source-range');
  if (text === undefined) return { start: 0, end: size - 1 };
  const match = /^bytes=(\d+)-(\d+)$/.exec(text);
  if (!match) throw s3Errors.invalidArgument('x-amz-copy-source-range must be bytes=<first>-<last>.');
  const range = { start: Number(match[1]), end: Number(match[2]) };
  if (range.start > range.end || range.end >= size) throw s3Errors.invalidRange();
  return range;
}

function seconds(date: string): number {
  return Math.floor(Date.parse(date) / 1000);
}

type Conditions = 'precondition-failed' | 'not-modified' | null;

/** Which of the conditions that a request makes fails, in the order of RFC 9110 section 13.2.2; null where none does. */
function failedCondition(request: IncomingMessage, { etag, modified }: StoredObject, prefix = ''): Conditions {
  const condition = (name: string) => header(request, `${prefix}${name}`);
  const [ifMatch, unmodified] = [condition('if-match'), condition('if-unmodified-since')];
  const isOther = ifMatch === undefined ? seconds(modified) > seconds(unmodified ?? '') : !matches(ifMatch, etag);
  if (isOther) return 'precondition-failed';
  const [ifNoneMatch, since] = [condition('if-none-match'), condition('if-modified-since')];
  const isKnown = ifNoneMatch === undefined ? seconds(modified) <= seconds(since ?? '') : matches(ifNoneMatch, etag);
  return isKnown ? 'not-modified' : null;
}

/** @throws S3Error where a condition of a read does not hold */
export function checkReadConditions(request: IncomingMessage, object: StoredObject): void {
  const failed = failedCondition(request, object);
  if (failed) throw failed === 'not-modified' ? s3Errors.notModified() : s3Errors.preconditionFailed();
}

/** @throws S3Error where a condition on the source of a copy does not hold */
export function checkCopyConditions(request: IncomingMessage, source: StoredObject): void {
  if (failedCondition(request, source, 'x-amz-copy-source-')) throw s3Errors.preconditionFailed();
}
