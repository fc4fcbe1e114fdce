import { execFile } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { mkdir, mkdtemp, readFile, rm, truncate, writeFile } from 'node:fs/promises';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { createServer as createTlsServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { buffer } from 'node:stream/consumers';
import { promisify } from 'node:util';
import { ListMultipartUploadsCommand, S3Client } from '@aws-sdk/client-s3';
import { ArtifactStoreFailure, NoSuchArtifact } from '../../src/artifacts/artifact-store.js';
import { S3ArtifactStore } from '../../src/artifacts/s3-artifact-store.js';
import { type S3Server, startS3Server } from '../../src/embedded/s3/s3-server.js';
import { MeddlingProxy } from '../support/meddling-proxy.js';

const MIB = 1024 * 1024;
const GIB = 1024 * MIB;
const CREDENTIALS = { accessKey: 'access-key', secretKey: 'secret-key' };
const LOCATION = { bucket: 'ims', key: 'rootfs' };
const TARGET = { bucket: 'ims', key: 'deleted/rootfs' };
const md5Of = (content: Buffer) => createHash('md5').update(content).digest('hex');
const isPart = ({ method, url = '' }: IncomingMessage) => method === 'PUT' && url.includes('partNumber=');
const isComplete = ({ method, url = '' }: IncomingMessage) => method === 'POST' && url.includes('uploadId=');

function answerXml(response: ServerResponse, status: number, body: string): true {
  response.writeHead(status, { 'content-type': 'application/xml' });
  response.end(`<?xml version="1.0" encoding="UTF-8"?>${body}`);
  return true;
}

function refuse(response: ServerResponse, status: number, code: string): true {
  return answerXml(response, status, `<Error><Code>${code}</Code><Message>secret-key at 10.1.2.3</Message></Error>`);
}

describe('S3ArtifactStore', () => {
  let directory: string;
  let server: S3Server;
  let proxy: MeddlingProxy;
  let store: S3ArtifactStore;
  let client: S3Client;

  const openUploads = async () => (await client.send(new ListMultipartUploadsCommand({ Bucket: 'ims' }))).Uploads ?? [];
  const makeFile = async (content: Buffer) => {
    const file = path.join(directory, 'file');
    await writeFile(file, content);
    return file;
  };
  const expectNothing = async (location = LOCATION) => {
    await expect(store.head(location)).rejects.toThrow(NoSuchArtifact);
    expect(await openUploads()).toEqual([]);
  };

  beforeAll(async () => {
    directory = await mkdtemp(path.join(tmpdir(), 'ims-s3-adapter-'));
    await mkdir(path.join(directory, 'store'));
    server = await startS3Server({ directory: path.join(directory, 'store'), credentials: CREDENTIALS });
    client = new S3Client({
      endpoint: server.endpoint,
      region: 'us-east-1',
      forcePathStyle: true,
      credentials: { accessKeyId: CREDENTIALS.accessKey, secretAccessKey: CREDENTIALS.secretKey },
    });
  });
  beforeEach(async () => {
    proxy = await MeddlingProxy.start(server.endpoint);
    store = new S3ArtifactStore({ endpoint: proxy.endpoint, ...CREDENTIALS, sslValidate: true });
    await store.ready(['ims']);
    proxy.requests.length = 0;
  });
  afterEach(async () => {
    proxy.meddle = () => false;
    await store.remove(LOCATION);
    await store.remove(TARGET);
    store.close();
    await proxy.close();
  });
  afterAll(async () => {
    client.destroy();
    await server.close();
    await rm(directory, { recursive: true, force: true });
  });

  describe('when a request fails', () => {
    it('tries again what may pass', async () => {
      let failures = 2;
      proxy.meddle = (_, response) => failures-- > 0 && refuse(response, 503, 'SlowDown');
      await store.put(LOCATION, { body: Buffer.from('content') });
      expect(proxy.count(/^PUT/)).toBe(3);
      expect((await store.readSmall(LOCATION, 100)).toString()).toBe('content');
    });

    it('tries again when a connection breaks', async () => {
      let isFirst = true;
      proxy.loseAnswer = () => isFirst && !(isFirst = false);
      await store.put(LOCATION, { body: Buffer.from('content') });
      expect(proxy.count(/^PUT/)).toBe(2);
    });

    it('gives up after five tries within about ten seconds', async () => {
      proxy.meddle = (_, response) => refuse(response, 503, 'SlowDown');
      const began = Date.now();
      await expect(store.head(LOCATION)).rejects.toThrow(/overloaded or broken/);
      expect(Date.now() - began).toBeGreaterThan(4_000);
      expect(Date.now() - began).toBeLessThan(12_000);
      expect(proxy.count(/^HEAD/)).toBe(5);
    });

    it.each([
      [403, 'SignatureDoesNotMatch', /refuses the credentials: check S3_ACCESS_KEY and S3_SECRET_KEY/],
      [507, 'InsufficientStorage', /is full/],
      [403, 'QuotaExceeded', /is full/],
      [404, 'NoSuchBucket', /no such bucket/],
    ])('says at once what to do about %d %s, and nothing else', async (status, code, sentence) => {
      proxy.meddle = (_, response) => refuse(response, status, code);
      const failure = await store.put(LOCATION, { body: Buffer.from('x') }).catch((error: unknown) => error as Error);
      expect(failure).toBeInstanceOf(ArtifactStoreFailure);
      expect((failure as Error).message).toMatch(sentence);
      expect((failure as Error).message).not.toMatch(/secret-key|127\.0\.0\.1|10\.1\.2\.3/);
      expect(proxy.requests).toHaveLength(1);
    });

    it('refuses wrong credentials in the same words, with a real store', async () => {
      const stranger = new S3ArtifactStore({
        endpoint: proxy.endpoint,
        ...CREDENTIALS,
        secretKey: 'wrong',
        sslValidate: true,
      });
      await expect(stranger.put(LOCATION, { body: Buffer.from('x') })).rejects.toThrow(/check S3_ACCESS_KEY/);
      await expect(stranger.head(LOCATION)).rejects.toThrow(/check S3_ACCESS_KEY/);
      await expect(stranger.ready(['ims'])).rejects.toThrow(/check S3_ACCESS_KEY/);
      stranger.close();
    });

    it('fails the stream of a reader whose connection breaks', async () => {
      await store.put(LOCATION, { body: randomBytes(MIB) });
      proxy.meddle = (_, response) => {
        response.writeHead(200, { 'content-length': MIB });
        response.write(Buffer.alloc(1000), () => response.destroy());
        return true;
      };
      await expect(buffer(await store.read(LOCATION))).rejects.toThrow(ArtifactStoreFailure);
      await expect(store.readSmall(LOCATION, 2 * MIB)).rejects.toThrow(/does not answer/);
    });
  });

  describe('put in parts', () => {
    it('sends four parts at once, no more', async () => {
      await store.put(LOCATION, { body: { file: await makeFile(randomBytes(72 * MIB)) } });
      expect(proxy.count(/partNumber=/)).toBe(9);
      expect(proxy.mostOpen).toBe(4);
    });

    it('leaves nothing where a part is refused', async () => {
      proxy.meddle = (request, response) =>
        isPart(request) && request.url!.includes('partNumber=3&') && refuse(response, 507, 'InsufficientStorage');
      const put = store.put(LOCATION, { body: { file: await makeFile(randomBytes(40 * MIB)) } });
      await expect(put).rejects.toThrow(/is full/);
      await expectNothing();
    });

    it('leaves nothing where the file changed meanwhile, or became shorter', async () => {
      const change = (work: (file: string) => Promise<void>) => async () => {
        const file = await makeFile(randomBytes(20 * MIB));
        let changed: Promise<void> | undefined;
        proxy.meddle = (request) => {
          if (request.method === 'POST') changed ??= work(file);
          return false;
        };
        await expect(store.put(LOCATION, { body: { file } })).rejects.toThrow(
          /changed while it was sent|became shorter/,
        );
        await changed;
        await expectNothing();
      };
      await change((file) => writeFile(file, randomBytes(20 * MIB)))();
      await change((file) => truncate(file, 9 * MIB))();
    });

    it('stores the artifact where the answer to the last request is lost', async () => {
      let isFirst = true;
      proxy.loseAnswer = (request) => isComplete(request) && isFirst && !(isFirst = false);
      const content = randomBytes(10 * MIB);
      const stored = await store.put(LOCATION, { body: content });
      expect(stored.md5).toBe(md5Of(content));
      expect(await store.head(LOCATION)).toMatchObject({ size: content.length, etag: stored.etag });
    });
  });

  describe('upload', () => {
    it('can be completed again where only its md5sum is missing', async () => {
      const upload = await store.upload(LOCATION, { kept: 'yes' });
      await upload.part(1, Buffer.from('content'));
      const md5 = md5Of(Buffer.from('content'));
      proxy.meddle = (request, response) =>
        request.headers['x-amz-copy-source'] !== undefined && refuse(response, 400, 'InvalidRequest');
      await expect(upload.complete(md5)).rejects.toThrow(ArtifactStoreFailure);
      proxy.meddle = () => false;
      expect((await upload.complete(md5)).metadata).toEqual({ kept: 'yes', md5sum: md5 });
    });

    it('waits for parts on their way before it is aborted', async () => {
      const upload = await store.upload(LOCATION);
      const sent = upload.part(1, randomBytes(6 * MIB));
      await upload.abort();
      await expect(sent).resolves.toBeUndefined();
      await expectNothing();
    });
  });

  describe('move', () => {
    it('copies in the parts of the source, four at once', async () => {
      const stored = await store.put(LOCATION, { body: randomBytes(72 * MIB), metadata: { a: 'b' } });
      proxy.requests.length = proxy.mostOpen = 0;
      await store.move(LOCATION, TARGET);
      expect(proxy.count(/^PUT .*partNumber=/)).toBe(9);
      expect(proxy.mostOpen).toBeLessThanOrEqual(4);
      expect(await store.head(TARGET)).toMatchObject({ etag: stored.etag, metadata: stored.metadata });
    });

    it('leaves the source where it is replaced meanwhile', async () => {
      await store.put(LOCATION, { body: randomBytes(20 * MIB) });
      const replacement = randomBytes(21 * MIB);
      let replaced: Promise<unknown> | undefined;
      proxy.meddle = (request, response) => {
        if (!isPart(request) || replaced) return false;
        const other = new S3ArtifactStore({ endpoint: server.endpoint, ...CREDENTIALS, sslValidate: true });
        replaced = other.put(LOCATION, { body: replacement }).then(() => {
          other.close();
          return refuse(response, 503, 'SlowDown');
        });
        return true;
      };
      await expect(store.move(LOCATION, TARGET)).rejects.toThrow(/replaced while it was copied/);
      await replaced;
      expect((await store.head(LOCATION)).metadata['md5sum']).toBe(md5Of(replacement));
      await expectNothing(TARGET);
    });

    it('can be repeated where the source could not be removed', async () => {
      await store.put(LOCATION, { body: Buffer.from('content') });
      proxy.meddle = (request, response) => request.method === 'DELETE' && refuse(response, 403, 'AccessDenied');
      await expect(store.move(LOCATION, TARGET)).rejects.toThrow(/refuses access/);
      expect((await store.head(LOCATION)).size).toBe(7);
      proxy.meddle = () => false;
      await store.move(LOCATION, TARGET);
      await expect(store.head(LOCATION)).rejects.toThrow(NoSuchArtifact);
      expect((await store.head(TARGET)).size).toBe(7);
    });

    it('keeps the source where the copy has another size', async () => {
      await store.put(LOCATION, { body: Buffer.from('content') });
      proxy.meddle = (request, response) => {
        if (request.method !== 'HEAD' || !request.url!.includes('deleted')) return false;
        response.writeHead(200, { 'content-length': '3', etag: '"e"' }).end();
        return true;
      };
      await expect(store.move(LOCATION, TARGET)).rejects.toThrow(/has 3 bytes in place of 7: its source was kept/);
      proxy.meddle = () => false;
      expect((await store.head(LOCATION)).size).toBe(7);
    });
  });

  describe('of more than 5 GiB, which S3 copies in parts only', () => {
    const size = 6 * GIB + 1;
    const etag = `${'0'.repeat(32)}-${Math.ceil(size / (8 * MIB))}`;
    let ranges: string[];
    let attributes: IncomingMessage['headers'];

    /** A store that holds one large artifact and takes any copy of it. */
    const answerForLarge = (request: IncomingMessage, response: ServerResponse) => {
      const { method, url = '', headers } = request;
      if (method === 'HEAD') {
        const head = { 'content-length': size, etag: `"${etag}"`, 'content-type': 'x/y', 'x-amz-meta-a': 'b' };
        response.writeHead(200, head).end();
        return true;
      }
      if (method === 'DELETE') return answerXml(response, 204, '');
      if (url.includes('uploads')) {
        attributes = headers;
        return answerXml(response, 200, '<R><UploadId>u</UploadId></R>');
      }
      const range = headers['x-amz-copy-source-range'] as string | undefined;
      if (range) ranges.push(range);
      return answerXml(response, 200, '<R><ETag>"00000000000000000000000000000000"</ETag></R>');
    };

    beforeEach(() => {
      ranges = [];
      proxy.meddle = answerForLarge;
    });
    afterEach(() => {
      const starts = ranges
        .map((range) => Number(/bytes=(\d+)-/.exec(range)![1]))
        .toSorted((one, other) => one - other);
      expect(starts).toEqual(Array.from({ length: 769 }, (_, index) => index * 8 * MIB));
      expect(ranges).toContain(`bytes=${6 * GIB}-${6 * GIB}`);
      expect(attributes).toMatchObject({ 'x-amz-meta-a': 'b', 'content-type': 'x/y' });
    });

    it('is moved', async () => {
      await store.move(LOCATION, TARGET);
      expect(proxy.requests.at(-1)).toMatch(/^DELETE \/ims\/rootfs/);
    });

    it('gets its md5sum after an upload', async () => {
      const upload = await store.upload(LOCATION);
      await upload.part(1, Buffer.from('in place of 6 GiB'));
      await upload.complete('0123456789abcdef0123456789abcdef');
      expect(attributes['x-amz-meta-md5sum']).toBe('0123456789abcdef0123456789abcdef');
    });
  });

  it('presigns urls that end', async () => {
    await store.put(LOCATION, { body: Buffer.from('0123456789') });
    const url = await store.presign(LOCATION, 3);
    const part = await fetch(url, { headers: { range: 'bytes=2-4' } });
    expect(await part.text()).toBe('234');
    await new Promise((resolve) => setTimeout(resolve, 4_100));
    const late = await fetch(url);
    await late.arrayBuffer();
    expect(late.status).toBe(403);
  });

  describe('with https', () => {
    let certificate: string;
    let endpoint: string;
    let tls: ReturnType<typeof createTlsServer>;

    const head = async (sslValidate: boolean | string) => {
      const secure = new S3ArtifactStore({ endpoint, ...CREDENTIALS, sslValidate });
      const end = await secure.head(LOCATION).catch((error: unknown) => error as Error);
      secure.close();
      return end;
    };

    beforeAll(async () => {
      const key = path.join(directory, 'key.pem');
      certificate = path.join(directory, 'certificate.pem');
      const names = ['-subj', '/CN=store', '-addext', 'subjectAltName=IP:127.0.0.1'];
      const newKey = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-keyout', key];
      await promisify(execFile)('openssl', ['req', '-x509', '-days', '1', ...newKey, '-out', certificate, ...names]);
      tls = createTlsServer({ key: await readFile(key), cert: await readFile(certificate) }, (_, response) =>
        response.writeHead(404).end(),
      );
      await new Promise<void>((resolve) => tls.listen(0, '127.0.0.1', resolve));
      endpoint = `https://127.0.0.1:${(tls.address() as AddressInfo).port}`;
    });
    afterAll(async () => {
      tls.closeAllConnections();
      await new Promise((resolve) => tls.close(resolve));
    });

    it('says what to do about a certificate of an unknown CA', async () => {
      expect(await head(true)).toMatchObject({ name: 'ArtifactStoreFailure' });
      expect(String(await head(true))).toMatch(/certificate .* not trusted: let S3_SSL_VALIDATE name the file/);
    });

    it('takes the certificate of a CA in a file, or any', async () => {
      expect(await head(certificate)).toBeInstanceOf(NoSuchArtifact);
      expect(await head(false)).toBeInstanceOf(NoSuchArtifact);
    });

    it('names the setting where the file cannot be read', async () => {
      expect(() => new S3ArtifactStore({ endpoint, ...CREDENTIALS, sslValidate: '/missing' })).toThrow(
        /S3_SSL_VALIDATE names a file that cannot be read \(ENOENT\)/,
      );
    });
  });
});
