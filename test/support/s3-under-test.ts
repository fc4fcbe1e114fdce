import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { mkdtemp, readdir, rm } from 'node:fs/promises';
import http, { type IncomingHttpHeaders } from 'node:http';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { buffer } from 'node:stream/consumers';
import {
  CompleteMultipartUploadCommand,
  CreateBucketCommand,
  CreateMultipartUploadCommand,
  GetObjectCommand,
  type GetObjectCommandInput,
  PutObjectCommand,
  type PutObjectCommandInput,
  S3Client,
  type S3ClientConfig,
  UploadPartCommand,
} from '@aws-sdk/client-s3';
import { type S3Server, type S3ServerOptions, startS3Server } from '../../src/embedded/s3/s3-server.js';
import { Child, DIST } from './child.js';
import {
  escapeAll,
  type PieceSigner,
  presignQuery,
  queryText,
  type S3Credentials,
  sha256,
  signHeaders,
} from './s3-signer.js';

export const CREDENTIALS: S3Credentials = { accessKey: 'access-key', secretKey: 'secret-key' };
export const BUCKET = 'images';
export const MIB = 1024 * 1024;

export const md5Of = (content: Buffer | string): string => createHash('md5').update(content).digest('hex');

/** The etag of an object that was uploaded in parts. */
export const etagOf = (...parts: Buffer[]): string =>
  `"${md5Of(Buffer.concat(parts.map((part) => Buffer.from(md5Of(part), 'hex'))))}-${parts.length}"`;

/** A client with the defaults of the SDK, except that a failure is a failure. */
export const makeClient = (endpoint: string, more: Partial<S3ClientConfig> = {}): S3Client =>
  new S3Client({
    endpoint,
    region: 'us-east-1',
    forcePathStyle: true,
    credentials: { accessKeyId: CREDENTIALS.accessKey, secretAccessKey: CREDENTIALS.secretKey },
    maxAttempts: 1,
    ...more,
  });

/** `<code> <status>` of a failed command of the SDK; `ok` where it did not fail. */
export async function outcomeOf(command: Promise<unknown>): Promise<string> {
  try {
    await command;
    return 'ok';
  } catch (error) {
    const { name, $metadata } = error as { name: string; $metadata?: { httpStatusCode?: number } };
    return `${name} ${$metadata?.httpStatusCode ?? String(error)}`;
  }
}

export interface RawRequest {
  method?: string;
  /** Escaped, from the bucket on. */
  path: string;
  query?: [string, string][];
  headers?: Record<string, string>;
  /** A function makes it with the signer of its pieces. */
  body?: Buffer | string | ((pieces: PieceSigner) => Buffer);
  /** `x-amz-content-sha256`; the digest of the body by default. */
  payload?: string;
  date?: Date;
  credentials?: S3Credentials;
  /** Changes the request after it was signed. */
  tamper?: (request: SentRequest) => void;
  agent?: http.Agent;
}

export interface SentRequest {
  method: string;
  /** Path and query. */
  url: string;
  headers: Record<string, string>;
  body: Buffer;
}

export interface RawAnswer {
  status: number;
  headers: IncomingHttpHeaders;
  body: Buffer;
  /** Of an error; empty where there is none. */
  code: string;
  /** Whether the server asked for the body, of a request that expects it to. */
  wasContinued: boolean;
  /** Whether the connection had brought another request before. */
  wasReused: boolean;
}

/** Sends what it is given, byte for byte; a body that the request expects to be asked for only when it is. */
export async function sendRaw(endpoint: string, sent: SentRequest, agent?: http.Agent): Promise<RawAnswer> {
  const { hostname, port } = new URL(endpoint);
  const { method, url, headers, body } = sent;
  const request = http.request({ hostname, port, method, path: url, headers, agent });
  const answered = once(request, 'response') as Promise<[http.IncomingMessage]>;
  let wasContinued = false;
  request.once('continue', () => {
    wasContinued = true;
    request.end(body);
  });
  if (headers['expect'] === undefined) request.end(body);
  else request.flushHeaders();
  const [response] = await answered;
  const content = await buffer(response);
  if (!request.writableFinished) {
    // Who does not want the connection again need not send the rest.
    if (agent) await once(request, 'finish');
    else request.destroy();
  }
  const code = /<Code>(.*?)<\/Code>/.exec(content.toString())?.[1] ?? '';
  const { reusedSocket: wasReused } = request;
  return { status: response.statusCode!, headers: response.headers, body: content, code, wasContinued, wasReused };
}

/** Speaks to an S3 server, as a client of the SDK and byte by byte. */
export class S3Session {
  readonly client: S3Client;

  constructor(readonly endpoint: string) {
    this.client = makeClient(endpoint);
  }

  put(key: string, body: PutObjectCommandInput['Body'], more: Partial<PutObjectCommandInput> = {}) {
    return this.client.send(new PutObjectCommand({ Bucket: BUCKET, Key: key, Body: body, ...more }));
  }

  async get(key: string, more: Partial<GetObjectCommandInput> = {}) {
    const answer = await this.client.send(new GetObjectCommand({ Bucket: BUCKET, Key: key, ...more }));
    return { ...answer, content: Buffer.from(await answer.Body!.transformToByteArray()) };
  }

  async createBucket(): Promise<void> {
    await this.client.send(new CreateBucketCommand({ Bucket: BUCKET }));
  }

  async createUpload(key: string): Promise<string> {
    return (await this.client.send(new CreateMultipartUploadCommand({ Bucket: BUCKET, Key: key }))).UploadId!;
  }

  async uploadPart(key: string, id: string, number: number, body: Buffer | string) {
    const part = { Bucket: BUCKET, Key: key, UploadId: id, PartNumber: number };
    const { ETag } = await this.client.send(new UploadPartCommand({ ...part, Body: body }));
    return { PartNumber: number, ETag };
  }

  complete(key: string, id: string, parts: { PartNumber: number; ETag: string | undefined }[]) {
    const upload = { Bucket: BUCKET, Key: key, UploadId: id, MultipartUpload: { Parts: parts } };
    return this.client.send(new CompleteMultipartUploadCommand(upload));
  }

  /** Uploads parts, `order` says in which order they are sent. */
  async uploadInParts(key: string, parts: Buffer[], order = parts.map((_, index) => index)) {
    const id = await this.createUpload(key);
    const sent = [];
    for (const index of order) sent.push(await this.uploadPart(key, id, index + 1, parts[index]!));
    return this.complete(
      key,
      id,
      sent.toSorted((left, right) => left.PartNumber - right.PartNumber),
    );
  }

  get host(): string {
    return new URL(this.endpoint).host;
  }

  /** A request that is signed by headers. */
  sign(request: RawRequest): SentRequest {
    const { method = 'GET', path: place, query = [], body = '', date } = request;
    const fixed = typeof body === 'function' ? null : Buffer.from(body);
    const payload = request.payload ?? sha256(fixed!);
    const lower = Object.entries(request.headers ?? {}).map(([name, value]) => [name.toLowerCase(), value]);
    const headers: Record<string, string> = { host: this.host, ...Object.fromEntries(lower) };
    const signed = signHeaders(
      { method, path: `/${place}`, query, headers, payload, ...(date && { date }) },
      request.credentials ?? CREDENTIALS,
    );
    const content = fixed ?? (body as (pieces: PieceSigner) => Buffer)(signed.pieces);
    const url = `/${place}${query.length ? `?${queryText(query)}` : ''}`;
    const hasBody = content.length > 0 || method === 'PUT' || method === 'POST';
    const length: Record<string, string> = hasBody ? { 'content-length': String(content.length) } : {};
    const sent: SentRequest = { method, url, headers: { ...length, ...signed.headers }, body: content };
    request.tamper?.(sent);
    return sent;
  }

  send(request: RawRequest): Promise<RawAnswer> {
    return sendRaw(this.endpoint, this.sign(request), request.agent);
  }

  /** Path and query of a presigned url of a key. */
  presign(
    method: string,
    key: string,
    {
      query,
      expires,
      date,
      headers,
    }: Pick<RawRequest, 'query' | 'date' | 'headers'> & { expires?: number | string } = {},
  ): string {
    const place = `/${BUCKET}/${key.split('/').map(escapeAll).join('/')}`;
    const signable = { method, path: place, headers: { host: this.host, ...headers }, ...(query && { query }) };
    return `${place}?${queryText(presignQuery({ ...signable, ...(date && { date }) }, CREDENTIALS, expires))}`;
  }

  /** Sends a request as it is, signed or not. */
  sendAsIs({
    method = 'GET',
    url,
    headers = {},
    body = '',
  }: {
    method?: string;
    url: string;
    headers?: Record<string, string>;
    body?: Buffer | string;
  }): Promise<RawAnswer> {
    const content = Buffer.from(body);
    const length: Record<string, string> = content.length ? { 'content-length': String(content.length) } : {};
    const sent: SentRequest = { method, url, headers: { host: this.host, ...length, ...headers }, body: content };
    return sendRaw(this.endpoint, sent);
  }
}

/** An embedded S3 server with a directory and a bucket of its own. */
export class S3UnderTest extends S3Session {
  private constructor(
    readonly directory: string,
    readonly server: S3Server,
    /** What the server logged. */
    readonly logged: string[],
  ) {
    super(server.endpoint);
  }

  static async start(options: Partial<S3ServerOptions> = {}): Promise<S3UnderTest> {
    const directory = await mkdtemp(path.join(tmpdir(), 'ims-s3-'));
    const logged: string[] = [];
    const log = (message: string, facts?: Record<string, unknown>) =>
      logged.push(`${message} ${JSON.stringify(facts)}`);
    const server = await startS3Server({ directory, credentials: CREDENTIALS, log, ...options });
    const subject = new S3UnderTest(directory, server, logged);
    await subject.createBucket();
    return subject;
  }

  /** Stops the server and removes its directory. Fails when it left a temporary file, or had to log a failure. */
  async close(): Promise<void> {
    this.client.destroy();
    await this.server.close();
    const left = await readdir(path.join(this.directory, 'temporary'));
    await rm(this.directory, { recursive: true, force: true });
    expect({ left, logged: this.logged }).toEqual({ left: [], logged: [] });
  }

  blobs(): Promise<string[]> {
    return readdir(path.join(this.directory, 'blobs'));
  }
}

/** An embedded S3 server as a process of its own, compiled, on a directory that is the test's. */
export class S3Child extends S3Session {
  private constructor(
    private readonly child: Child,
    endpoint: string,
  ) {
    super(endpoint);
  }

  /**
   * Rejects with what the child printed where the server does not start.
   * @param prefix a command that runs the child, as `setpriv …`
   */
  static async start(directory: string, prefix: string[] = []): Promise<S3Child> {
    const child = Child.start(
      `const { startS3Server } = await import(${JSON.stringify(`${DIST}/src/embedded/s3/s3-server.js`)});
       const options = ${JSON.stringify({ directory, credentials: CREDENTIALS })};
       const server = await startS3Server({ ...options, log: (message, facts) => console.error(message, facts) });
       console.log('ready ' + JSON.stringify(server.endpoint));`,
      { prefix },
    );
    return new S3Child(child, await child.ready<string>());
  }

  get pid(): number {
    return this.child.process.pid!;
  }

  /** What the server logged. */
  get output(): string {
    return this.child.output.replace(/^ready .*\n/m, '');
  }

  /** Ends the process where it stands. */
  async kill(): Promise<void> {
    this.client.destroy();
    await this.child.kill('SIGKILL');
  }
}
