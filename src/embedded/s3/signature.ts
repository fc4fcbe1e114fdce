import { createHash, createHmac, timingSafeEqual } from 'node:crypto';
import type { IncomingHttpHeaders } from 'node:http';
import { s3Errors } from './s3-error.js';

/** AWS Signature Version 4, as described in the AWS documentation "Authenticating Requests (AWS Signature Version 4)". */

const SKEW = 15 * 60 * 1000;
/** Longest life of a presigned url, seconds. */
const PRESIGN_LIMIT = 604_800;

export interface SignedRequest {
  method: string;
  /** As it was sent, escapes and all. */
  rawPath: string;
  query: URLSearchParams;
  headers: IncomingHttpHeaders;
}

/** What verifies the pieces of a signed stream, in their order: each signature covers the one before. */
export interface ChunkVerifier {
  /** Whether this is the signature of the next chunk, which has this sha256 (hex). */
  isChunk(sha256OfChunk: string, signature: string): boolean;
  /** Whether this is the signature of the trailer lines. */
  isTrailer(trailer: string, signature: string): boolean;
}

export interface Verified {
  /** `x-amz-content-sha256`: the sha256 of the body, or how it is streamed. */
  payload: string;
  chunks: ChunkVerifier;
}

/** What `x-amz-content-sha256` may say beside a digest. */
const PAYLOADS = [
  'UNSIGNED-PAYLOAD',
  'STREAMING-UNSIGNED-PAYLOAD-TRAILER',
  'STREAMING-AWS4-HMAC-SHA256-PAYLOAD',
  'STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER',
];

const hmac = (key: string | Buffer, text: string): Buffer => createHmac('sha256', key).update(text).digest();
/** Of bytes as node reads them from headers: one character each. */
const sha256 = (text: string): string => createHash('sha256').update(text, 'latin1').digest('hex');

/** Percent-encoding of AWS: all but unreserved characters. */
export function awsEncode(text: string): string {
  return encodeURIComponent(text).replace(
    /[!'()*]/g,
    (character) => `%${character.charCodeAt(0).toString(16).toUpperCase()}`,
  );
}

interface Claim {
  credential: string;
  signedHeaders: string[];
  signature: string;
  /** `YYYYMMDDTHHMMSSZ`. */
  date: string;
  payload: string;
  /** Seconds; null for signed headers, which hold for as long as clocks may differ. */
  expires: number | null;
}

function claimOfQuery(query: URLSearchParams, headers: IncomingHttpHeaders): Claim {
  return {
    credential: query.get('X-Amz-Credential') ?? '',
    signedHeaders: (query.get('X-Amz-SignedHeaders') ?? '').split(';'),
    signature: query.get('X-Amz-Signature') ?? '',
    date: query.get('X-Amz-Date') ?? '',
    payload: String(headers['x-amz-content-sha256'] ?? 'UNSIGNED-PAYLOAD'),
    expires: Number(query.get('X-Amz-Expires')),
  };
}

function claimOfHeaders(headers: IncomingHttpHeaders): Claim {
  const match = /^AWS4-HMAC-SHA256 Credential=([^,]+), ?SignedHeaders=([^,]+), ?Signature=([0-9a-f]+)$/.exec(
    headers.authorization ?? '',
  );
  if (!match) throw s3Errors.accessDenied();
  const payload = headers['x-amz-content-sha256'];
  if (typeof payload !== 'string') throw s3Errors.invalidRequest('The header x-amz-content-sha256 is missing.');
  const [, credential, signedHeaders, signature] = match as unknown as [string, string, string, string];
  return {
    credential,
    signedHeaders: signedHeaders.split(';'),
    signature,
    date: String(headers['x-amz-date'] ?? ''),
    payload,
    expires: null,
  };
}

function checkTime({ date, expires }: Claim, now: number): void {
  const match = /^(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)Z$/.exec(date);
  if (!match) throw s3Errors.accessDenied('The date of the signature is missing or malformed.');
  const [year, month, ...rest] = match.slice(1).map(Number) as [number, number, number, number, number, number];
  const age = now - Date.UTC(year, month - 1, ...rest);
  if (expires === null) {
    if (Math.abs(age) > SKEW) throw s3Errors.timeTooSkewed();
    return;
  }
  const isValid = Number.isInteger(expires) && expires > 0 && expires <= PRESIGN_LIMIT;
  if (!isValid || age < -SKEW || age > expires * 1000) throw s3Errors.requestExpired();
}

/** Every header that tells S3 what to do has to be signed, else the bearer of a url could have it do something else. */
function checkHeaders({ signedHeaders, payload }: Claim, headers: IncomingHttpHeaders): void {
  if (!signedHeaders.includes('host')) throw s3Errors.unsignedHeader('host');
  const unsigned = Object.keys(headers).find((name) => name.startsWith('x-amz-') && !signedHeaders.includes(name));
  if (unsigned) throw s3Errors.unsignedHeader(unsigned);
  if (!PAYLOADS.includes(payload) && !/^[0-9a-f]{64}$/.test(payload))
    throw s3Errors.invalidArgument(`x-amz-content-sha256 must be a sha256 in hex, or one of ${PAYLOADS.join(', ')}.`);
}

/** Sorted by name, then by value: `a=` comes before `a-b=`, though `-` comes before `=`. */
function canonicalQuery(query: URLSearchParams): string {
  const compare = (left: string, right: string) => Number(left > right) - Number(left < right);
  return [...query]
    .filter(([name]) => name !== 'X-Amz-Signature')
    .map(([name, value]): [string, string] => [awsEncode(name), awsEncode(value)])
    .toSorted((left, right) => compare(left[0], right[0]) || compare(left[1], right[1]))
    .map(([name, value]) => `${name}=${value}`)
    .join('&');
}

function canonicalRequest(
  { method, rawPath, query, headers }: SignedRequest,
  { signedHeaders, payload }: Claim,
): string {
  const lines = signedHeaders.map(
    (name) =>
      `${name}:${String(headers[name] ?? '')
        .trim()
        .replace(/ +/g, ' ')}`,
  );
  return [method, rawPath, canonicalQuery(query), ...lines, '', signedHeaders.join(';'), payload].join('\n');
}

/** Compares in a time that does not tell how much of a guess was right. */
function isEqual(expected: string, guess: string): boolean {
  const [left, right] = [Buffer.from(expected), Buffer.from(guess)];
  return left.length === right.length && timingSafeEqual(left, right);
}

function chunkVerifier(key: Buffer, date: string, scope: string, seed: string): ChunkVerifier {
  let previous = seed;
  const sign = (kind: string, ...rest: string[]) => {
    previous = hmac(key, [`AWS4-HMAC-SHA256-${kind}`, date, scope, previous, ...rest].join('\n')).toString('hex');
    return previous;
  };
  return {
    isChunk: (sha256OfChunk, signature) => isEqual(sign('PAYLOAD', sha256(''), sha256OfChunk), signature),
    isTrailer: (trailer, signature) => isEqual(sign('TRAILER', sha256(trailer)), signature),
  };
}

/**
 * Verifies who sent a request, by headers or by a presigned url.
 * @throws S3Error where the signature is missing, wrong, or out of time
 */
export function verifySignature(
  request: SignedRequest,
  credentials: { accessKey: string; secretKey: string },
  now = Date.now(),
): Verified {
  const isPresigned = request.query.has('X-Amz-Signature');
  const claim = isPresigned ? claimOfQuery(request.query, request.headers) : claimOfHeaders(request.headers);
  const parts = claim.credential.split('/');
  const [day, region, service, terminator] = parts.slice(-4);
  if (parts.slice(0, -4).join('/') !== credentials.accessKey) throw s3Errors.invalidAccessKey();
  checkTime(claim, now);
  checkHeaders(claim, request.headers);
  if (day !== claim.date.slice(0, 8)) throw s3Errors.signatureDoesNotMatch();
  const key = [day, region, service, terminator].reduce<string | Buffer>(
    (secret, part) => hmac(secret, part ?? ''),
    `AWS4${credentials.secretKey}`,
  ) as Buffer;
  const scope = [day, region, service, terminator].join('/');
  const expected = hmac(
    key,
    `AWS4-HMAC-SHA256\n${claim.date}\n${scope}\n${sha256(canonicalRequest(request, claim))}`,
  ).toString('hex');
  if (!isEqual(expected, claim.signature)) throw s3Errors.signatureDoesNotMatch();
  return { payload: claim.payload, chunks: chunkVerifier(key, claim.date, scope, expected) };
}
