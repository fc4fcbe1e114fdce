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

/** What verifies the chunks of a signed stream: each signature covers the one before. */
export interface ChunkSigner {
  /** @returns signature of a chunk with this sha256 (hex) */
  sign(sha256OfChunk: string): string;
  /** @returns signature of the trailer lines */
  signTrailer(trailer: string): string;
}

export interface Verified {
  /** `x-amz-content-sha256`: the sha256 of the body, or how it is streamed. */
  payload: string;
  chunks: ChunkSigner;
}

const hmac = (key: string | Buffer, text: string): Buffer => createHmac('sha256', key).update(text).digest();
const sha256 = (text: string): string => createHash('sha256').update(text).digest('hex');

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
  const signedHeaders = (query.get('X-Amz-SignedHeaders') ?? '').split(';');
  const sent = headers['x-amz-content-sha256'];
  return {
    credential: query.get('X-Amz-Credential') ?? '',
    signedHeaders,
    signature: query.get('X-Amz-Signature') ?? '',
    date: query.get('X-Amz-Date') ?? '',
    payload: typeof sent === 'string' && signedHeaders.includes('x-amz-content-sha256') ? sent : 'UNSIGNED-PAYLOAD',
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

function canonicalRequest(
  { method, rawPath, query, headers }: SignedRequest,
  { signedHeaders, payload }: Claim,
): string {
  const pairs = [...query]
    .filter(([name]) => name !== 'X-Amz-Signature')
    .map(([name, value]) => `${awsEncode(name)}=${awsEncode(value)}`);
  const lines = signedHeaders.map(
    (name) =>
      `${name}:${String(headers[name] ?? '')
        .trim()
        .replace(/ +/g, ' ')}`,
  );
  return [method, rawPath, pairs.toSorted().join('&'), ...lines, '', signedHeaders.join(';'), payload].join('\n');
}

function isEqual(left: string, right: string): boolean {
  return left.length === right.length && timingSafeEqual(Buffer.from(left), Buffer.from(right));
}

function chunkSigner(key: Buffer, date: string, scope: string, seed: string): ChunkSigner {
  let previous = seed;
  const sign = (kind: string, ...rest: string[]) => {
    previous = hmac(key, [`AWS4-HMAC-SHA256-${kind}`, date, scope, previous, ...rest].join('\n')).toString('hex');
    return previous;
  };
  return {
    sign: (sha256OfChunk) => sign('PAYLOAD', sha256(''), sha256OfChunk),
    signTrailer: (trailer) => sign('TRAILER', sha256(trailer)),
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
  if (!claim.signedHeaders.includes('host') || day !== claim.date.slice(0, 8)) throw s3Errors.signatureDoesNotMatch();
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
  return { payload: claim.payload, chunks: chunkSigner(key, claim.date, scope, expected) };
}
