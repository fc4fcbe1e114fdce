import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import http from 'node:http';
import { connect } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { CHECKSUMS, type ChecksumName } from '../../src/embedded/s3/checksums.js';
import { type PieceSigner, sha256 } from '../support/s3-signer.js';
import {
  BUCKET,
  CREDENTIALS,
  md5Of,
  MIB,
  outcomeOf,
  type RawRequest,
  S3UnderTest,
  type SentRequest,
} from '../support/s3-under-test.js';

const SIGNED = 'STREAMING-AWS4-HMAC-SHA256-PAYLOAD';
const SIGNED_TRAILER = `${SIGNED}-TRAILER`;
const UNSIGNED_TRAILER = 'STREAMING-UNSIGNED-PAYLOAD-TRAILER';
const MINUTE = 60_000;

const checksumOf = (name: ChecksumName, content: Buffer) => {
  const checksum = CHECKSUMS[name]();
  checksum.update(content);
  return checksum.digest();
};

interface Stream {
  chunks: Buffer[];
  /** Name and value. */
  trailers?: [string, string][];
  signer?: PieceSigner;
  /** Whether the trailers are signed, where there is a signer. */
  signsTrailers?: boolean;
}

/** A body in `aws-chunked`. */
function streamOf({ chunks, trailers = [], signer, signsTrailers = false }: Stream): Buffer {
  const pieces: (Buffer | string)[] = [];
  for (const chunk of [...chunks, Buffer.alloc(0)]) {
    const signature = signer ? `;chunk-signature=${signer.chunk(chunk)}` : '';
    pieces.push(`${chunk.length.toString(16)}${signature}\r\n`, chunk, chunk.length ? '\r\n' : '');
  }
  const lines = trailers.map(([name, value]) => `${name}:${value}`);
  if (signsTrailers)
    lines.push(`x-amz-trailer-signature:${signer!.trailer(lines.map((line) => `${line}\n`).join(''))}`);
  pieces.push(...lines.map((line) => `${line}\r\n`), '\r\n');
  return Buffer.concat(pieces.map((piece) => Buffer.from(piece)));
}

/** What the embedded server makes of requests that no SDK would send, or that somebody changed on their way. */
describe('embedded S3 server on the wire', () => {
  let s3: S3UnderTest;
  const data = randomBytes(200_000);
  const chunks = [data.subarray(0, 65_536), data.subarray(65_536, 131_072), data.subarray(131_072)];

  const put = (key: string, body: RawRequest['body'], more: Partial<RawRequest> = {}) =>
    s3.send({ method: 'PUT', path: `${BUCKET}/${key}`, body: body!, ...more });
  const get = (key: string, more: Partial<RawRequest> = {}) => s3.send({ path: `${BUCKET}/${key}`, ...more });
  const statusAndCode = async (answer: Promise<{ status: number; code: string }>) => {
    const { status, code } = await answer;
    return `${status} ${code}`.trim();
  };
  const expectMissing = async (key: string) => expect(await statusAndCode(get(key))).toBe('404 NoSuchKey');

  beforeAll(async () => {
    s3 = await S3UnderTest.start();
    await s3.put('object', data);
  });
  afterAll(() => s3.close());

  describe('signatures', () => {
    it.each(['GET', 'PUT', 'DELETE', 'HEAD', 'POST'])('refuse %s without one', async (method) => {
      const answer = await s3.sendAsIs({ method, url: `/${BUCKET}/object`, body: method === 'PUT' ? 'x' : '' });
      expect(answer.status).toBe(403);
      expect(answer.code).toBe(method === 'HEAD' ? '' : 'AccessDenied');
    });

    it('refuse other schemes, and nonsense', async () => {
      for (const authorization of [
        'Basic YTpi',
        'AWS access-key:c2ln',
        'AWS4-HMAC-SHA256',
        'AWS4-HMAC-SHA256 Credential=,',
      ])
        expect((await s3.sendAsIs({ url: '/', headers: { authorization } })).status).toBe(403);
    });

    it.each<[string, (sent: SentRequest) => void]>([
      ['method', (sent) => (sent.method = 'DELETE')],
      ['path', (sent) => (sent.url = sent.url.replace('object', 'other'))],
      ['escapes of the path', (sent) => (sent.url = sent.url.replace('object', '%6Fbject'))],
      ['query', (sent) => (sent.url += '?acl=')],
      ['value of a header', (sent) => (sent.headers['range'] = 'bytes=1-2')],
      ['date', (sent) => (sent.headers['x-amz-date'] = sent.headers['x-amz-date']!.replace(/\d\dZ/, '00Z'))],
      ['kind of payload', (sent) => (sent.headers['x-amz-content-sha256'] = 'UNSIGNED-PAYLOAD')],
      ['signature', (sent) => (sent.headers['authorization'] = sent.headers['authorization']!.replace(/.$/, '!'))],
    ])('cover the %s', async (_, tamper) => {
      const date = new Date(Math.floor(Date.now() / MINUTE) * MINUTE + 30_000);
      const answer = await get('object', { headers: { range: 'bytes=0-1' }, date, tamper });
      expect(answer.status).toBe(403);
      expect((await get('object')).body.equals(data)).toBe(true);
    });

    it('cover the body', async () => {
      const tamper = (sent: SentRequest) => (sent.body = Buffer.from('taken'));
      expect(await statusAndCode(put('tampered', 'given', { tamper }))).toBe('400 XAmzContentSHA256Mismatch');
      await expectMissing('tampered');
    });

    it('cover a body that is XML', async () => {
      await s3.put('not-named', 'x');
      const body = '<Delete><Object><Key>was-named</Key></Object></Delete>';
      const tamper = (sent: SentRequest) => (sent.body = Buffer.from(body.replace('was', 'not')));
      const answer = s3.send({ method: 'POST', path: BUCKET, query: [['delete', '']], body, tamper });
      expect(await statusAndCode(answer)).toBe('400 XAmzContentSHA256Mismatch');
      expect((await get('not-named')).status).toBe(200);
    });

    it('cover every header that S3 obeys', async () => {
      const tamper = (sent: SentRequest) => (sent.headers['x-amz-copy-source'] = `${BUCKET}/object`);
      expect(await statusAndCode(put('stolen', 'x', { tamper }))).toBe('403 AccessDenied');
      const url = s3.presign('PUT', 'stolen');
      const presigned = { method: 'PUT', url, headers: { 'x-amz-copy-source': `${BUCKET}/object` } };
      expect(await statusAndCode(s3.sendAsIs(presigned))).toBe('403 AccessDenied');
      await expectMissing('stolen');
    });

    it.each([
      [-16, '403 RequestTimeTooSkewed'],
      [-14, '200'],
      [14, '200'],
      [16, '403 RequestTimeTooSkewed'],
    ])('of a clock that is %d minutes off', async (minutes, expected) => {
      const date = new Date(Date.now() + minutes * MINUTE);
      expect(await statusAndCode(get('object', { date }))).toBe(expected);
    });

    it('name the payload', async () => {
      for (const payload of ['', 'nonsense', sha256('').toUpperCase(), 'STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD'])
        expect(await statusAndCode(put('payload', 'x', { payload }))).toMatch(
          /^40[03] (InvalidArgument|AccessDenied)$/,
        );
      expect(await statusAndCode(put('payload', 'x', { payload: 'UNSIGNED-PAYLOAD' }))).toBe('200');
    });

    it('sort a query by names, and keep its plus signs', async () => {
      const query: [string, string][] = [
        ['prefix', 'a+b c'],
        ['list-type', '2'],
        ['list', ''],
        ['list-', 'ü'],
        ['list.', '/'],
        ['list', '0'],
      ];
      const { status, body } = await s3.send({ path: BUCKET, query });
      expect(status).toBe(200);
      expect(body.toString()).toContain('<Prefix>a+b c</Prefix>');
    });

    it('cover bytes, not characters', async () => {
      const value = Buffer.from('Größe').toString('latin1');
      const headers = { 'x-amz-meta-name': 'Größe', 'x-amz-meta-spaces': 'a  b' };
      // Signed as the bytes that are sent.
      const tamper = (sent: SentRequest) => (sent.headers['x-amz-meta-name'] = value);
      const answer = await put('latin', 'x', { headers: { ...headers, 'x-amz-meta-spaces': 'a b' }, tamper });
      expect(answer.status).toBe(200);
      expect((await get('latin')).headers).toMatchObject({ 'x-amz-meta-name': value, 'x-amz-meta-spaces': 'a b' });
    });
  });

  describe('presigned urls', () => {
    it('hold for what they were made for', async () => {
      const url = s3.presign('GET', 'object');
      expect((await s3.sendAsIs({ url })).body.equals(data)).toBe(true);
      for (const method of ['PUT', 'DELETE', 'HEAD']) expect((await s3.sendAsIs({ method, url })).status).toBe(403);
      expect((await s3.sendAsIs({ url: `${url}&versionId=x` })).status).toBe(403);
      expect((await s3.sendAsIs({ url: url.replace('/object', '/other') })).status).toBe(403);
      expect((await s3.sendAsIs({ url: url.replace('Expires=60', 'Expires=90') })).status).toBe(403);
    });

    it.each<[string, number | string, number, number]>([
      ['that has expired', 60, -61_000, 403],
      ['in its last seconds', 60, -50_000, 200],
      ['of the future', 60, 16 * MINUTE, 403],
      ['of a clock that is a little ahead', 60, 14 * MINUTE, 200],
      ['of a week', 604_800, -6 * 24 * 60 * MINUTE, 200],
      ['of more than a week', 604_801, 0, 403],
      ['of no time', 0, 0, 403],
      ['of negative time', -5, 0, 403],
      ['of a time that is no number', 'long', 0, 403],
    ])('%s', async (_, expires, shift, status) => {
      const url = s3.presign('GET', 'object', { expires, date: new Date(Date.now() + shift) });
      expect((await s3.sendAsIs({ url })).status).toBe(status);
    });

    it('bind the headers that they sign', async () => {
      const url = s3.presign('GET', 'object', { headers: { range: 'bytes=0-1' } });
      expect((await s3.sendAsIs({ url, headers: { range: 'bytes=0-1' } })).status).toBe(206);
      expect((await s3.sendAsIs({ url, headers: { range: 'bytes=0-9' } })).status).toBe(403);
      expect((await s3.sendAsIs({ url })).status).toBe(403);
    });

    it('are refused with a signature of other letters', async () => {
      const url = s3
        .presign('GET', 'object')
        .replace(/Signature=.*/, `Signature=${encodeURIComponent('ü'.repeat(64))}`);
      expect(await statusAndCode(s3.sendAsIs({ url }))).toBe('403 SignatureDoesNotMatch');
    });

    it.each(['a\r\nset-cookie: x=1', '日本'])('set no header that is none: %j', async (value) => {
      const query: [string, string][] = [['response-content-disposition', value]];
      expect(await statusAndCode(s3.sendAsIs({ url: s3.presign('GET', 'object', { query }) }))).toBe(
        '400 InvalidArgument',
      );
      const url = s3.presign('PUT', 'no-header', { query: [['x-amz-meta-name', value]] });
      expect(await statusAndCode(s3.sendAsIs({ method: 'PUT', url, body: 'x' }))).toBe('400 InvalidArgument');
    });
  });

  describe('bodies in chunks', () => {
    const lengthOf = (content: Buffer) => ({
      'x-amz-decoded-content-length': String(content.length),
      'content-encoding': 'aws-chunked',
    });
    const putStream = (
      key: string,
      payload: string,
      make: (signer: PieceSigner) => Buffer,
      headers: Record<string, string> = {},
    ) => put(key, make, { payload, headers: { ...lengthOf(data), ...headers } });
    const checksum = (name: ChecksumName, content = data): [string, string] => [
      `x-amz-checksum-${name}`,
      checksumOf(name, content),
    ];
    const announce = { 'x-amz-trailer': 'x-amz-checksum-crc32' };

    it('are taken with signatures', async () => {
      expect((await putStream('signed', SIGNED, (signer) => streamOf({ chunks, signer }))).status).toBe(200);
      const { body, headers } = await get('signed');
      expect(body.equals(data)).toBe(true);
      expect(headers['content-encoding']).toBeUndefined();
    });

    it.each(Object.keys(CHECKSUMS) as ChecksumName[])('are taken with a trailer of %s', async (name) => {
      const make = () => streamOf({ chunks, trailers: [checksum(name)] });
      const answer = await putStream('trailer', UNSIGNED_TRAILER, make, { 'x-amz-trailer': `x-amz-checksum-${name}` });
      expect(answer.status).toBe(200);
      expect(answer.headers[`x-amz-checksum-${name}`]).toBe(checksumOf(name, data));
    });

    it('are taken with a signed trailer', async () => {
      const make = (signer: PieceSigner) =>
        streamOf({ chunks, signer, trailers: [checksum('crc32')], signsTrailers: true });
      expect((await putStream('signed-trailer', SIGNED_TRAILER, make, announce)).status).toBe(200);
      expect((await get('signed-trailer')).body.equals(data)).toBe(true);
    });

    it('are taken when they are empty', async () => {
      const make = (signer: PieceSigner) => streamOf({ chunks: [], signer });
      const headers = { 'x-amz-decoded-content-length': '0' };
      expect((await putStream('nothing', SIGNED, make, headers)).status).toBe(200);
      expect((await get('nothing')).body).toHaveLength(0);
    });

    it('keep an encoding of the content', async () => {
      const make = (signer: PieceSigner) => streamOf({ chunks, signer });
      await putStream('encoded', SIGNED, make, { 'content-encoding': 'gzip, aws-chunked' });
      expect((await get('encoded')).headers['content-encoding']).toBe('gzip');
    });

    /** Changes a byte; a hexadecimal digit becomes another one. */
    const flip = (body: Buffer, at: number) => {
      body[at] = body[at] === 0x30 ? 0x31 : 0x30;
      return body;
    };
    const signedTrailer = (signer: PieceSigner) =>
      streamOf({ chunks, signer, trailers: [checksum('crc32')], signsTrailers: true });
    it.each<[string, string, (signer: PieceSigner) => Buffer, Record<string, string>, string]>([
      [
        'a changed byte',
        SIGNED,
        (signer) => flip(streamOf({ chunks, signer }), 100_000),
        {},
        '403 SignatureDoesNotMatch',
      ],
      [
        'a changed signature',
        SIGNED,
        (signer) => flip(streamOf({ chunks, signer }), 30),
        {},
        '403 SignatureDoesNotMatch',
      ],
      [
        'chunks in another order',
        SIGNED,
        (signer) => {
          const whole = streamOf({ chunks, signer });
          const size = 65_536 + '10000;chunk-signature='.length + 64 + 4;
          return Buffer.concat([whole.subarray(size, 2 * size), whole.subarray(0, size), whole.subarray(2 * size)]);
        },
        {},
        '403 SignatureDoesNotMatch',
      ],
      ['no signatures', SIGNED, () => streamOf({ chunks }), {}, '403 SignatureDoesNotMatch'],
      [
        'no last chunk',
        SIGNED,
        (signer) => {
          const whole = streamOf({ chunks, signer });
          return whole.subarray(0, whole.lastIndexOf('0;chunk-signature'));
        },
        {},
        '400 IncompleteBody',
      ],
      ['a chunk less', SIGNED, (signer) => streamOf({ chunks: chunks.slice(1), signer }), {}, '400 IncompleteBody'],
      [
        'a chunk more',
        SIGNED,
        (signer) => streamOf({ chunks: [...chunks, Buffer.from('x')], signer }),
        {},
        '400 IncompleteBody',
      ],
      ['trailers that were not announced', SIGNED, signedTrailer, {}, '400 InvalidRequest'],
      [
        'a changed trailer',
        SIGNED_TRAILER,
        (signer) => {
          const whole = signedTrailer(signer);
          return flip(whole, whole.indexOf('x-amz-checksum-crc32:') + 22);
        },
        announce,
        '403 SignatureDoesNotMatch',
      ],
      [
        'a trailer without signature',
        SIGNED_TRAILER,
        (signer) => streamOf({ chunks, signer, trailers: [checksum('crc32')] }),
        announce,
        '400 MalformedTrailerError',
      ],
      [
        'another checksum',
        UNSIGNED_TRAILER,
        () => streamOf({ chunks, trailers: [checksum('crc32', chunks[0])] }),
        announce,
        '400 BadDigest',
      ],
      ['no checksum', UNSIGNED_TRAILER, () => streamOf({ chunks }), announce, '400 MalformedTrailerError'],
      [
        'a trailer without a name',
        UNSIGNED_TRAILER,
        () => streamOf({ chunks, trailers: [['', 'x']] }),
        announce,
        '400 InvalidRequest',
      ],
      [
        'very many trailers',
        UNSIGNED_TRAILER,
        () => streamOf({ chunks, trailers: Array.from({ length: 100 }, (_, index) => [`x-${index}`, 'x']) }),
        announce,
        '400 InvalidRequest',
      ],
      [
        'something after the end',
        UNSIGNED_TRAILER,
        () => Buffer.concat([streamOf({ chunks, trailers: [checksum('crc32')] }), Buffer.from('x')]),
        announce,
        '400 InvalidRequest',
      ],
      [
        'a header without a number',
        UNSIGNED_TRAILER,
        () => Buffer.from('nonsense\r\n'),
        announce,
        '400 InvalidRequest',
      ],
      ['a header without an end', UNSIGNED_TRAILER, () => Buffer.alloc(10_000, '1'), announce, '400 InvalidRequest'],
      [
        'a chunk that is longer than it says',
        UNSIGNED_TRAILER,
        () => Buffer.from('3\r\nabcd\r\n0\r\n\r\n'),
        announce,
        '400 InvalidRequest',
      ],
      ['no framing', UNSIGNED_TRAILER, () => data, announce, '400 InvalidRequest'],
    ])('are refused with %s', async (_, payload, make, headers, expected) => {
      await put('refused', 'old content');
      expect(await statusAndCode(putStream('refused', payload, make, headers))).toBe(expected);
      expect((await get('refused')).body.toString()).toBe('old content');
    });

    it('are refused without the length of the content', async () => {
      const make = (signer: PieceSigner) => streamOf({ chunks, signer });
      expect(await statusAndCode(put('no-length', make, { payload: SIGNED }))).toBe('411 MissingContentLength');
    });

    it('may announce trailers that are no checksums', async () => {
      const make = () => streamOf({ chunks, trailers: [['x-amz-checksum-constructor', 'x']] });
      const headers = { 'x-amz-trailer': 'x-amz-checksum-constructor' };
      expect((await putStream('odd-trailer', UNSIGNED_TRAILER, make, headers)).status).toBe(200);
    });
  });

  describe('bodies that are refused', () => {
    it('are answered, however much is on its way', async () => {
      const large = randomBytes(24 * MIB);
      const make = () => Buffer.concat([Buffer.from('1\r\nxx\r\n'), large]);
      const headers = { 'x-amz-decoded-content-length': String(large.length) };
      expect(await statusAndCode(put('large', make, { payload: UNSIGNED_TRAILER, headers }))).toBe(
        '400 InvalidRequest',
      );
      const credentials = { ...CREDENTIALS, secretKey: 'wrong' };
      expect(await statusAndCode(put('large', large, { credentials }))).toBe('403 SignatureDoesNotMatch');
      const upload = {
        query: [
          ['uploadId', 'missing'],
          ['partNumber', '1'],
        ] as [string, string][],
      };
      expect(await statusAndCode(put('large', large, upload))).toBe('404 NoSuchUpload');
    });

    it('leave the connection for the next request', async () => {
      const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
      const refused = randomBytes(8 * MIB);
      const first = await put('next', refused, { agent, headers: { 'if-match': '"other"' } });
      const second = await put('next', 'taken', { agent });
      expect(first).toMatchObject({ status: 412, wasReused: false });
      expect(second).toMatchObject({ status: 200, wasReused: true });
      agent.destroy();
    });

    it.each(['keep-alive', 'close'])(
      'are answered to clients that send all of it before they read: %s',
      async (connection) => {
        const { method, url, headers, body } = s3.sign({
          method: 'PUT',
          path: `${BUCKET}/large`,
          body: randomBytes(24 * MIB),
          credentials: { ...CREDENTIALS, secretKey: 'wrong' },
        });
        const lines = Object.entries({ ...headers, connection }).map(([name, value]) => `${name}: ${value}\r\n`);
        const socket = connect(Number(new URL(s3.endpoint).port), '127.0.0.1').pause();
        socket.write(`${method} ${url} HTTP/1.1\r\n${lines.join('')}\r\n`);
        await new Promise<void>((resolve, reject) =>
          socket.write(body, (error) => (error ? reject(error) : resolve())),
        );
        const [answer] = (await once(socket.resume(), 'data')) as [Buffer];
        expect(answer.toString()).toContain('SignatureDoesNotMatch');
        socket.destroy();
      },
    );

    it('do no harm when their client goes away after the answer', async () => {
      const { url, headers } = s3.sign({
        method: 'POST',
        path: BUCKET,
        query: [['delete', '']],
        body: () => Buffer.alloc(0),
        payload: UNSIGNED_TRAILER,
        headers: { 'x-amz-decoded-content-length': String(64 * MIB) },
      });
      const lines = Object.entries({ ...headers, 'content-length': 65 * MIB }).map(
        ([name, value]) => `${name}: ${value}\r\n`,
      );
      const socket = connect(Number(new URL(s3.endpoint).port), '127.0.0.1');
      socket.write(`POST ${url} HTTP/1.1\r\n${lines.join('')}\r\n4000000\r\n`);
      socket.write(Buffer.alloc(6 * MIB));
      const [answer] = (await once(socket, 'data')) as [Buffer];
      expect(answer.toString()).toContain('EntityTooLarge');
      socket.destroy();
      await sleep(50);
      expect((await get('object', { method: 'HEAD' })).status).toBe(200);
    });

    it('are not asked for when the request is refused anyway', async () => {
      const headers = { expect: '100-continue' };
      const taken = await put('expected', data, { headers });
      expect(taken).toMatchObject({ status: 200, wasContinued: true });
      const wrong = await put('expected', data, { headers, credentials: { ...CREDENTIALS, secretKey: 'wrong' } });
      expect(wrong).toMatchObject({ status: 403, wasContinued: false });
      const missing = await s3.send({ method: 'PUT', path: 'missing-bucket/x', body: data, headers });
      expect(missing).toMatchObject({ status: 404, wasContinued: false });
      const known = await put('expected', data, { headers: { ...headers, 'if-none-match': '*' } });
      expect(known).toMatchObject({ status: 412, wasContinued: false });
    });
  });

  describe('ranges', () => {
    const text = '0123456789';
    beforeAll(async () => {
      await put('digits', text);
      await put('no-digits', '');
    });

    it.each([
      ['bytes=0-0', 206, '0'],
      ['bytes=0-', 206, text],
      ['bytes=9-', 206, '9'],
      ['bytes=9-9', 206, '9'],
      ['bytes=3-5', 206, '345'],
      ['bytes=5-1000', 206, '56789'],
      ['bytes=0-99999999999999999999999', 206, text],
      ['bytes=-1', 206, '9'],
      ['bytes=-10', 206, text],
      ['bytes=-99999', 206, text],
      ['bytes=5-3', 200, text],
      ['bytes=', 200, text],
      ['bytes=-', 200, text],
      ['bytes=a-b', 200, text],
      ['bytes=0-1,3-4', 200, text],
      ['lines=0-1', 200, text],
    ])('%s', async (range, status, expected) => {
      const answer = await get('digits', { headers: { range } });
      expect([answer.status, answer.body.toString()]).toEqual([status, expected]);
      expect(answer.headers['content-length']).toBe(String(expected.length));
      const head = await get('digits', { method: 'HEAD', headers: { range } });
      expect([head.status, head.headers['content-range']]).toEqual([status, answer.headers['content-range']]);
    });

    it.each(['bytes=10-', 'bytes=10-12', 'bytes=-0', 'bytes=99999999999999999999-'])('%s is outside', async (range) => {
      expect(await statusAndCode(get('digits', { headers: { range } }))).toBe('416 InvalidRange');
    });

    it('have nothing to give of nothing', async () => {
      for (const range of ['bytes=0-', 'bytes=-1', 'bytes=0-0'])
        expect(await statusAndCode(get('no-digits', { headers: { range } }))).toBe('416 InvalidRange');
    });

    it('are given only of the object that the reader knows', async () => {
      const { headers } = await get('digits');
      const ask = async (ifRange: string) =>
        (await get('digits', { headers: { range: 'bytes=0-1', 'if-range': ifRange } })).status;
      expect(await ask(headers.etag!)).toBe(206);
      expect(await ask(headers['last-modified']!)).toBe(206);
      expect(await ask('"other"')).toBe(200);
      expect(await ask(new Date(0).toUTCString())).toBe(200);
    });
  });

  describe('answers', () => {
    it('say what does not hold, with the etag of what is there', async () => {
      const etag = `"${md5Of(data)}"`;
      const answer = await get('object', { headers: { 'if-none-match': etag } });
      expect(answer).toMatchObject({ status: 304, headers: { etag }, body: Buffer.alloc(0) });
      const weak = await get('object', { headers: { 'if-none-match': `"x", W/${etag}` } });
      expect(weak.status).toBe(304);
      expect((await get('object', { headers: { 'if-none-match': '*' } })).status).toBe(304);
    });

    it('to HEAD have no body, whatever they are', async () => {
      const answer = await get('missing', { method: 'HEAD' });
      expect(answer).toMatchObject({ status: 404, body: Buffer.alloc(0) });
      const there = await get('object', { method: 'HEAD' });
      expect(there).toMatchObject({ status: 200, body: Buffer.alloc(0) });
      expect(there.headers['content-length']).toBe(String(data.length));
    });

    it.each([
      ['PATCH', `${BUCKET}/object`, '405 MethodNotAllowed'],
      ['POST', `${BUCKET}/object`, '405 MethodNotAllowed'],
      ['PATCH', BUCKET, '405 MethodNotAllowed'],
      ['PUT', '', '405 MethodNotAllowed'],
      ['GET', `${BUCKET}/%zz`, '400 InvalidRequest'],
      ['GET', `${BUCKET}/%ff`, '400 InvalidRequest'],
      ['GET', `%zz/object`, '400 InvalidRequest'],
      ['GET', `${BUCKET}/${'x'.repeat(1025)}`, '400 KeyTooLongError'],
      ['GET', '..%2F..%2Fetc/passwd', '404 NoSuchBucket'],
    ])('to %s /%s', async (method, path, expected) => {
      expect(await statusAndCode(s3.send({ method, path }))).toBe(expected);
    });

    it.each([
      ['PUT', 'versioning'],
      ['PUT', 'policy'],
      ['DELETE', 'policy'],
      ['PUT', 'lifecycle'],
      ['DELETE', 'tagging'],
    ])('to %s of ?%s do not take it for the bucket itself', async (method, name) => {
      await s3.send({ method: 'PUT', path: 'settings' });
      const answer = s3.send({ method, path: 'settings', query: [[name, '']] });
      expect(await statusAndCode(answer)).toBe('501 NotImplemented');
      expect((await s3.send({ method: 'HEAD', path: 'settings' })).status).toBe(200);
      const unmade = await s3.send({ method, path: 'settings-2', query: [[name, '']] });
      expect(unmade.status).toBeGreaterThanOrEqual(400);
      expect((await s3.send({ method: 'HEAD', path: 'settings-2' })).status).toBe(404);
    });

    it('do not take a version or a part for the object', async () => {
      await put('versioned', 'x');
      const version = { query: [['versionId', 'v1']] as [string, string][] };
      expect(await statusAndCode(get('versioned', { ...version, method: 'DELETE' }))).toBe('404 NoSuchVersion');
      expect(await statusAndCode(get('versioned', version))).toBe('404 NoSuchVersion');
      expect(await statusAndCode(get('versioned', { query: [['partNumber', '1']] }))).toBe('501 NotImplemented');
      expect((await get('versioned', { query: [['versionId', 'null']] })).status).toBe(200);
    });

    it('to lists refuse what they do not know', async () => {
      const list = (name: string, value: string) => statusAndCode(s3.send({ path: BUCKET, query: [[name, value]] }));
      expect(await list('max-keys', '-1')).toBe('400 InvalidArgument');
      expect(await list('max-keys', 'many')).toBe('400 InvalidArgument');
      expect(await list('encoding-type', 'base64')).toBe('400 InvalidArgument');
    });

    it.each([
      ['nothing', ''],
      ['no XML', 'Delete'],
      ['another root', '<Remove><Object><Key>object</Key></Object></Remove>'],
      ['no object', '<Delete></Delete>'],
      ['an object without a key', '<Delete><Object><Name>object</Name></Object></Delete>'],
      ['an object that is text', '<Delete><Object>object</Object></Delete>'],
      ['an empty key', '<Delete><Object><Key></Key></Object></Delete>'],
      ['a key of elements', '<Delete><Object><Key><a>object</a></Key></Object></Delete>'],
      ['an end that is missing', '<Delete><Object><Key>object</Key></Object>'],
      [
        'entities of its own',
        '<!DOCTYPE Delete [<!ENTITY k "object">]><Delete><Object><Key>&k;</Key></Object></Delete>',
      ],
      ['a thousand and one keys', `<Delete>${'<Object><Key>object</Key></Object>'.repeat(1001)}</Delete>`],
    ])('refuse to delete with %s', async (_, body) => {
      const answer = s3.send({ method: 'POST', path: BUCKET, query: [['delete', '']], body });
      expect(await statusAndCode(answer)).toBe('400 MalformedXML');
      expect((await get('object', { method: 'HEAD' })).status).toBe(200);
    });

    it('refuse XML of many megabytes', async () => {
      const body = `<Delete>${' '.repeat(5 * MIB)}</Delete>`;
      const answer = s3.send({ method: 'POST', path: BUCKET, query: [['delete', '']], body });
      expect(await statusAndCode(answer)).toBe('400 EntityTooLarge');
    });

    it('read keys of XML as they are', async () => {
      const keys = [' spaces ', 'line\nbreak', '<&>"', '007', 'true'];
      for (const key of keys) await s3.put(key, 'x');
      const names = [' spaces ', 'line&#10;break', '&lt;&amp;&#x3E;&quot;', '007', 'true'];
      const objects = names.map((name) => `<Object><Key>${name}</Key></Object>`).join('\n');
      const body = `<?xml version="1.0"?>\n<Delete xmlns="http://s3.amazonaws.com/doc/2006-03-01/">\n${objects}</Delete>`;
      const md5 = createHash('md5').update(body).digest('base64');
      const answer = await s3.send({
        method: 'POST',
        path: BUCKET,
        query: [['delete', '']],
        body,
        headers: { 'content-md5': md5 },
      });
      expect(answer.body.toString()).not.toContain('<Error>');
      for (const key of keys) expect(await outcomeOf(s3.get(key))).toBe('NoSuchKey 404');
    });
  });
});
