import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import fc from 'fast-check';
import { ChunkedBody } from '../../src/embedded/s3/chunked-body.js';
import { listKeys } from '../../src/embedded/s3/listing.js';
import { S3Error } from '../../src/embedded/s3/s3-error.js';
import { type ChunkVerifier, type SignedRequest, verifySignature } from '../../src/embedded/s3/signature.js';
import { joinSegments, type Segment, sliceSegments } from '../../src/embedded/s3/segments.js';
import { parseXml } from '../../src/embedded/s3/xml.js';
import { escapeAll, presignQuery, signHeaders } from '../support/s3-signer.js';
import { BUCKET, CREDENTIALS, MIB, S3UnderTest } from '../support/s3-under-test.js';

const RUNS = { numRuns: 300 };

/** Whether what was thrown is a refusal: an answer of the protocol that blames the client. */
const isRefusal = (error: unknown) => error instanceof S3Error && error.status >= 400 && error.status < 500;

/** Decodes pieces of a body. Rejects where the decoder does. */
async function decode(pieces: Buffer[], body: ChunkedBody): Promise<Buffer> {
  const decoded: Buffer[] = [];
  await pipeline(Readable.from(pieces), body, async (chunks: AsyncIterable<Buffer>) => {
    for await (const chunk of chunks) decoded.push(chunk);
  });
  return Buffer.concat(decoded);
}

/** Cuts bytes at places, so that a piece may end anywhere. */
function cut(bytes: Buffer, places: number[]): Buffer[] {
  const ends = [...new Set(places.map((place) => place % (bytes.length + 1)))].toSorted((left, right) => left - right);
  return [...ends, bytes.length].map((end, index) => bytes.subarray(index ? ends[index - 1] : 0, end));
}

const bytes = (limit: number) => fc.uint8Array({ maxLength: limit }).map((array) => Buffer.from(array));
const frame = (chunks: Buffer[], trailer: string) =>
  Buffer.concat([
    ...chunks
      .filter((chunk) => chunk.length)
      .flatMap((chunk) => [Buffer.from(`${chunk.length.toString(16)}\r\n`), chunk, Buffer.from('\r\n')]),
    Buffer.from(`0\r\n${trailer}\r\n`),
  ]);

describe('decoder of aws-chunked bodies', () => {
  const places = fc.array(fc.nat(10_000), { maxLength: 8 });

  it('decodes any content, wherever its pieces end', () =>
    fc.assert(
      fc.asyncProperty(fc.array(bytes(300), { maxLength: 6 }), places, async (chunks, ends) => {
        const body = new ChunkedBody(null, true);
        const decoded = await decode(cut(frame(chunks, 'x-amz-checksum-crc32:AAAAAA==\r\n'), ends), body);
        expect(decoded.equals(Buffer.concat(chunks))).toBe(true);
        expect(body.trailer('x-amz-checksum-crc32')).toBe('AAAAAA==');
      }),
      RUNS,
    ));

  it('refuses every beginning of a body that is not all of it', () =>
    fc.assert(
      fc.asyncProperty(fc.array(bytes(50), { minLength: 1, maxLength: 4 }), fc.nat(), async (chunks, length) => {
        const whole = frame(chunks, '');
        // The last line of a body is one that clients may leave out.
        const part = whole.subarray(0, length % (whole.length - '\r\n'.length));
        await expect(decode([part], new ChunkedBody(null, false))).rejects.toMatchObject({ code: 'IncompleteBody' });
      }),
      RUNS,
    ));

  it('decodes or refuses whatever comes', () =>
    fc.assert(
      fc.asyncProperty(
        fc.array(
          fc.oneof(
            bytes(40),
            fc
              .constantFrom('\r\n', '0\r\n', '5\r\nhello\r\n', 'ffffffff\r\n', 'a:b\r\n', '-1\r\n', ';chunk-signature=')
              .map((text) => Buffer.from(text)),
          ),
          { maxLength: 12 },
        ),
        places,
        fc.boolean(),
        fc.boolean(),
        async (pieces, ends, isSigned, hasTrailers) => {
          const verifier: ChunkVerifier = { isChunk: (_, signature) => signature === '', isTrailer: () => true };
          const body = new ChunkedBody(isSigned ? verifier : null, hasTrailers);
          const outcome = await decode(cut(Buffer.concat(pieces), ends), body).catch((error: unknown) => error);
          expect(outcome instanceof Buffer || isRefusal(outcome)).toBe(true);
        },
      ),
      RUNS,
    ));
});

describe('check of signatures', () => {
  const HOST = { host: 'localhost' };
  const key = fc.string({ unit: 'binary', minLength: 1, maxLength: 30 }).filter((text) => text.isWellFormed());
  const query = fc
    .array(fc.tuple(key, key), { maxLength: 4 })
    .filter((pairs) => pairs.every(([name]) => !name.startsWith('X-Amz-')));
  const searchOf = (pairs: [string, string][]) =>
    new URLSearchParams(pairs.map((pair) => pair.map(escapeAll).join('=')).join('&'));
  const path = key.map((text) => `/bucket/${escapeAll(text)}`);

  it('takes every path and query that is signed by headers, and no other', () =>
    fc.assert(
      fc.property(path, query, key, (rawPath, pairs, other) => {
        const { headers } = signHeaders(
          { method: 'GET', path: rawPath, query: pairs, headers: HOST, payload: 'UNSIGNED-PAYLOAD' },
          CREDENTIALS,
        );
        const request: SignedRequest = { method: 'GET', rawPath, query: searchOf(pairs), headers };
        expect(verifySignature(request, CREDENTIALS).payload).toBe('UNSIGNED-PAYLOAD');
        for (const changed of [
          { method: 'PUT' },
          { rawPath: `${rawPath}x` },
          { query: searchOf([...pairs, [other, '']]) },
        ])
          expect(() => verifySignature({ ...request, ...changed }, CREDENTIALS)).toThrow(S3Error);
      }),
      RUNS,
    ));

  it('takes every path and query that is presigned, and no other', () =>
    fc.assert(
      fc.property(path, query, key, (rawPath, pairs, other) => {
        const signed = presignQuery({ method: 'GET', path: rawPath, query: pairs, headers: HOST }, CREDENTIALS);
        const request: SignedRequest = { method: 'GET', rawPath, query: searchOf(signed), headers: HOST };
        expect(verifySignature(request, CREDENTIALS).payload).toBe('UNSIGNED-PAYLOAD');
        for (const changed of [
          { method: 'PUT' },
          { rawPath: `${rawPath}x` },
          { query: searchOf([...signed, [other, '']]) },
        ])
          expect(() => verifySignature({ ...request, ...changed }, CREDENTIALS)).toThrow(S3Error);
      }),
      RUNS,
    ));

  it('refuses whatever else comes', () => {
    const text = fc.oneof(
      fc.string({ unit: 'binary', maxLength: 80 }),
      fc.constantFrom('host', '__proto__', 'constructor', 'host;x-amz-date', '20260101T000000Z'),
    );
    const header = fc.constantFrom('authorization', 'x-amz-date', 'x-amz-content-sha256', 'x-amz-meta-a', 'host');
    const parameter = fc.constantFrom(
      'X-Amz-Signature',
      'X-Amz-Credential',
      'X-Amz-Date',
      'X-Amz-Expires',
      'X-Amz-SignedHeaders',
    );
    const credential = fc.constantFrom('access-key/20260101/us-east-1/s3/aws4_request', 'access-key////', '', 'other');
    const authorization = fc
      .tuple(credential, text, text)
      .map(
        ([name, names, signature]) =>
          `AWS4-HMAC-SHA256 Credential=${name}, SignedHeaders=${names}, Signature=${signature}`,
      );
    fc.assert(
      fc.property(
        fc.dictionary(header, text),
        fc.option(authorization),
        fc.array(fc.tuple(parameter, fc.oneof(text, credential)), { maxLength: 6 }),
        text,
        (headers, signed, pairs, rawPath) => {
          const request = {
            method: 'GET',
            rawPath,
            query: new URLSearchParams(pairs),
            headers: { ...headers, ...(signed && { authorization: signed }) },
          };
          let refusal: unknown;
          try {
            verifySignature(request, CREDENTIALS, Date.UTC(2026, 0, 1));
          } catch (error) {
            refusal = error;
          }
          expect(isRefusal(refusal)).toBe(true);
        },
      ),
      { numRuns: 2000 },
    );
  });
});

describe('parts of the embedded store', () => {
  it('lists every key once, in pages of any size, as one page does', () => {
    const keys = fc.uniqueArray(
      fc.string({ unit: fc.constantFrom('a', 'b', '/', 'é', '🦊', '\ufb01'), minLength: 1, maxLength: 6 }),
      { maxLength: 20 },
    );
    const query = fc.record({
      prefix: fc.constantFrom('', 'a', 'a/', '/'),
      delimiter: fc.constantFrom('', '/', 'b/'),
      limit: fc.integer({ min: 1, max: 5 }),
    });
    fc.assert(
      fc.property(keys, query, (unsorted, { prefix, delimiter, limit }) => {
        const sorted = unsorted.toSorted((left, right) => Buffer.compare(Buffer.from(left), Buffer.from(right)));
        const whole = listKeys(sorted, { prefix, delimiter, after: '', limit: 1000 });
        const pages = { keys: [] as string[], commonPrefixes: [] as string[] };
        for (let after: string | null = ''; after !== null;) {
          const page = listKeys(sorted, { prefix, delimiter, after, limit });
          expect(page.keys.length + page.commonPrefixes.length).toBeLessThanOrEqual(limit);
          pages.keys.push(...page.keys);
          pages.commonPrefixes.push(...page.commonPrefixes);
          after = page.next;
        }
        expect({ ...pages, next: null }).toEqual(whole);
        const named = sorted.filter((name) => name.startsWith(prefix));
        const grouped = named.filter((name) => delimiter && name.includes(delimiter, prefix.length));
        expect(whole.keys).toEqual(named.filter((name) => !grouped.includes(name)));
        expect(whole.commonPrefixes).toHaveLength(
          new Set(grouped.map((name) => name.slice(0, name.indexOf(delimiter, prefix.length)))).size,
        );
      }),
      RUNS,
    );
  });

  it('cuts any range out of segments, joined or not', () => {
    const segment = fc.record({
      blob: fc.constantFrom('a', 'b'),
      offset: fc.nat(50),
      size: fc.integer({ min: 1, max: 20 }),
    });
    /** A name for each byte. */
    const spell = (segments: Segment[]) =>
      segments.flatMap(({ blob, offset, size }) =>
        Array.from({ length: size }, (_, index) => `${blob}${offset + index}`),
      );
    fc.assert(
      fc.property(
        fc.array(segment, { minLength: 1, maxLength: 6 }),
        fc.nat(150),
        fc.nat(150),
        (segments, from, length) => {
          expect(spell(joinSegments(segments))).toEqual(spell(segments));
          expect(spell(sliceSegments(segments, from, from + length))).toEqual(
            spell(segments).slice(from, from + length + 1),
          );
        },
      ),
      RUNS,
    );
  });

  it('reads or refuses any XML', () => {
    const piece = fc.oneof(
      fc.string({ unit: 'binary', maxLength: 10 }),
      fc.constantFrom(
        '<Delete>',
        '</Delete>',
        '<Object>',
        '</Object>',
        '<Key>',
        '</Key>',
        '<![CDATA[',
        ']]>',
        '<!--',
        '&#x0;',
        '&#xD800;',
        '&lt;',
        '<?xml?>',
        '<__proto__>',
        '</__proto__>',
      ),
    );
    fc.assert(
      fc.property(fc.array(piece, { maxLength: 12 }), (pieces) => {
        try {
          expect(parseXml(pieces.join(''), 'Delete')).toEqual(expect.any(Object));
        } catch (error) {
          expect(isRefusal(error)).toBe(true);
        }
      }),
      RUNS,
    );
  });
});

describe('embedded S3 server', () => {
  it('answers any bytes, and goes on', async () => {
    const s3 = await S3UnderTest.start();
    const method = fc.constantFrom('GET', 'PUT', 'POST', 'DELETE', 'HEAD', 'OPTIONS');
    const name = fc.constantFrom(
      'uploads',
      'uploadId',
      'partNumber',
      'delete',
      'acl',
      'list-type',
      'max-keys',
      'continuation-token',
      'encoding-type',
      'prefix',
      'versionId',
      'location',
    );
    const header = fc.constantFrom(
      'range',
      'if-match',
      'if-modified-since',
      'x-amz-copy-source',
      'x-amz-copy-source-range',
      'content-md5',
      'x-amz-checksum-crc32',
      'x-amz-trailer',
      'x-amz-meta-a',
      'x-amz-decoded-content-length',
    );
    const value = fc.oneof(
      fc.string({ maxLength: 12 }).map((text) => text.trim().replaceAll(/ +/g, ' ')),
      fc.constantFrom('1', '-1', '0', `${BUCKET}/key`, 'bytes=0-1', '%', '%zz', '*', 'url'),
    );
    const payload = fc.constantFrom(
      'UNSIGNED-PAYLOAD',
      'STREAMING-UNSIGNED-PAYLOAD-TRAILER',
      'STREAMING-AWS4-HMAC-SHA256-PAYLOAD',
    );
    try {
      await fc.assert(
        fc.asyncProperty(
          method,
          fc.constantFrom(BUCKET, `${BUCKET}/key`, `${BUCKET}/other`, ''),
          fc.array(fc.tuple(name, value), { maxLength: 3 }),
          fc.dictionary(header, value, { maxKeys: 3 }),
          fc.oneof(bytes(100), fc.constant(Buffer.from('<Delete><Object><Key>key</Key></Object></Delete>'))),
          payload,
          async (verb, path, pairs, headers, body, kind) => {
            const content = verb === 'PUT' || verb === 'POST' ? body : '';
            const { status } = await s3.send({
              method: verb,
              path,
              query: pairs,
              headers,
              body: content,
              payload: kind,
            });
            expect(status === 501 || (status >= 200 && status < 500)).toBe(true);
          },
        ),
        { numRuns: 1500 },
      );
      expect(s3.logged).toEqual([]);
    } finally {
      await s3.close();
    }
  });

  it('goes on when readers go away in the middle', async () => {
    const s3 = await S3UnderTest.start();
    await s3.put('key', Buffer.alloc(8 * MIB));
    for (let turn = 0; turn < 5; turn++) {
      const answer = await fetch(`${s3.endpoint}${s3.presign('GET', 'key')}`);
      await answer.body!.cancel();
    }
    expect((await s3.send({ path: `${BUCKET}/key`, headers: { range: 'bytes=0-0' } })).status).toBe(206);
    await s3.close();
  });
});
