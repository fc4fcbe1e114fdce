import { createHash, createHmac } from 'node:crypto';

/** AWS Signature Version 4 of a client, written from the AWS documentation and apart from the server's, so that tests can also sign wrongly. */

export interface S3Credentials {
  accessKey: string;
  secretKey: string;
}

export interface Signable {
  method: string;
  /** Escaped. */
  path: string;
  query?: [string, string][];
  /** Names in lower case; all are signed. `host` is one of them. */
  headers: Record<string, string>;
  /** `x-amz-content-sha256`. */
  payload: string;
  date?: Date;
}

/** Signs the pieces of a stream; each signature covers the one before. */
export class PieceSigner {
  constructor(
    private readonly key: Buffer,
    private readonly scope: string,
    private readonly timestamp: string,
    private previous: string,
  ) {}

  chunk(content: Buffer): string {
    return this.sign('PAYLOAD', sha256(''), sha256(content));
  }

  /** @param lines `name:value\n` for each trailer */
  trailer(lines: string): string {
    return this.sign('TRAILER', sha256(lines));
  }

  private sign(kind: string, ...digests: string[]): string {
    const text = [`AWS4-HMAC-SHA256-${kind}`, this.timestamp, this.scope, this.previous, ...digests].join('\n');
    return (this.previous = hmac(this.key, text).toString('hex'));
  }
}

export const sha256 = (content: string | Buffer): string => createHash('sha256').update(content).digest('hex');
const hmac = (key: string | Buffer, text: string): Buffer => createHmac('sha256', key).update(text).digest();

/** Percent-encoding of everything but unreserved characters, byte by byte. */
export function escapeAll(text: string): string {
  return [...Buffer.from(text)]
    .map((byte) => String.fromCharCode(byte))
    .map((character) =>
      /[A-Za-z0-9._~-]/.test(character)
        ? character
        : `%${character.charCodeAt(0).toString(16).toUpperCase().padStart(2, '0')}`,
    )
    .join('');
}

export const queryText = (query: [string, string][]): string =>
  query.map((pair) => pair.map(escapeAll).join('=')).join('&');

const timestampOf = (date: Date): string => date.toISOString().replace(/[-:]|\.\d{3}/g, '');

function signatureOf({ method, path, query = [], headers, payload }: Signable, timestamp: string, secretKey: string) {
  const names = Object.keys(headers).toSorted();
  const pairs = query.map((pair) => pair.map(escapeAll) as [string, string]);
  pairs.sort(([a, x], [b, y]) => (a === b ? Number(x > y) - Number(x < y) : a < b ? -1 : 1));
  const canonical = [
    method,
    path,
    pairs.map((pair) => pair.join('=')).join('&'),
    ...names.map((name) => `${name}:${headers[name]}`),
    '',
    names.join(';'),
    payload,
  ].join('\n');
  const scope = `${timestamp.slice(0, 8)}/us-east-1/s3/aws4_request`;
  const key = scope.split('/').reduce<string | Buffer>((secret, part) => hmac(secret, part), `AWS4${secretKey}`);
  const text = `AWS4-HMAC-SHA256\n${timestamp}\n${scope}\n${sha256(canonical)}`;
  return { names, scope, key: key as Buffer, signature: hmac(key, text).toString('hex') };
}

/** The headers of a signed request, and what signs the pieces of its body. */
export function signHeaders(
  request: Signable,
  credentials: S3Credentials,
): { headers: Record<string, string>; pieces: PieceSigner } {
  const timestamp = timestampOf(request.date ?? new Date());
  const headers = { ...request.headers, 'x-amz-date': timestamp, 'x-amz-content-sha256': request.payload };
  const { names, scope, key, signature } = signatureOf({ ...request, headers }, timestamp, credentials.secretKey);
  const authorization = `AWS4-HMAC-SHA256 Credential=${credentials.accessKey}/${scope}, SignedHeaders=${names.join(';')}, Signature=${signature}`;
  return { headers: { ...headers, authorization }, pieces: new PieceSigner(key, scope, timestamp, signature) };
}

/** The query of a presigned url. @param expires seconds, or what stands in their place */
export function presignQuery(
  request: Omit<Signable, 'payload'>,
  credentials: S3Credentials,
  expires: number | string = 60,
): [string, string][] {
  const timestamp = timestampOf(request.date ?? new Date());
  const query: [string, string][] = [
    ...(request.query ?? []),
    ['X-Amz-Algorithm', 'AWS4-HMAC-SHA256'],
    ['X-Amz-Credential', `${credentials.accessKey}/${timestamp.slice(0, 8)}/us-east-1/s3/aws4_request`],
    ['X-Amz-Date', timestamp],
    ['X-Amz-Expires', String(expires)],
    ['X-Amz-SignedHeaders', Object.keys(request.headers).toSorted().join(';')],
  ];
  const signable = { ...request, query, payload: 'UNSIGNED-PAYLOAD' };
  return [...query, ['X-Amz-Signature', signatureOf(signable, timestamp, credentials.secretKey).signature]];
}
