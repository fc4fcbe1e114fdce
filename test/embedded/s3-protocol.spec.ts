import { randomBytes } from 'node:crypto';
import { request as httpRequest } from 'node:http';
import { Readable } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import {
  AbortMultipartUploadCommand,
  CopyObjectCommand,
  type CopyObjectCommandInput,
  CreateBucketCommand,
  DeleteBucketCommand,
  DeleteObjectCommand,
  DeleteObjectsCommand,
  GetBucketAclCommand,
  GetBucketLocationCommand,
  GetBucketPolicyCommand,
  GetBucketVersioningCommand,
  GetObjectCommand,
  HeadBucketCommand,
  HeadObjectCommand,
  type HeadObjectCommandInput,
  ListBucketsCommand,
  ListMultipartUploadsCommand,
  ListObjectsCommand,
  ListObjectsV2Command,
  type ListObjectsV2CommandInput,
  ListPartsCommand,
  PutObjectCommand,
  UploadPartCopyCommand,
} from '@aws-sdk/client-s3';
import { getSignedUrl } from '@aws-sdk/s3-request-presigner';
import {
  BUCKET,
  CREDENTIALS,
  etagOf,
  makeClient,
  md5Of,
  MIB,
  outcomeOf,
  S3UnderTest,
} from '../support/s3-under-test.js';
import { until } from '../support/system.js';

/** What the AWS SDK sees of the embedded server, with the SDK's own defaults: streamed bodies, CRC32 trailers, checked answers. */
describe('embedded S3 server and the AWS SDK', () => {
  let s3: S3UnderTest;
  const data = randomBytes(100_000);
  const part = randomBytes(5 * MIB);

  const head = (key: string, more: Partial<HeadObjectCommandInput> = {}) =>
    s3.client.send(new HeadObjectCommand({ Bucket: BUCKET, Key: key, ...more }));
  const copy = (key: string, source: string, more: Partial<CopyObjectCommandInput> = {}) =>
    s3.client.send(new CopyObjectCommand({ Bucket: BUCKET, Key: key, CopySource: `${BUCKET}/${source}`, ...more }));
  const remove = (key: string) => s3.client.send(new DeleteObjectCommand({ Bucket: BUCKET, Key: key }));
  const list = (more: Partial<ListObjectsV2CommandInput>) =>
    s3.client.send(new ListObjectsV2Command({ Bucket: BUCKET, ...more }));
  const keysBelow = async (prefix: string) => ((await list({ Prefix: prefix })).Contents ?? []).map(({ Key }) => Key);
  const putAll = (keys: string[]) => Promise.all(keys.map((key) => s3.put(key, 'x')));

  beforeAll(async () => {
    s3 = await S3UnderTest.start();
  });
  afterAll(() => s3.close());

  describe('objects', () => {
    it('keeps content, etag, metadata and content type', async () => {
      const put = await s3.put('small', data, {
        Metadata: { md5sum: md5Of(data) },
        ContentType: 'application/x-squash',
      });
      expect(put.ETag).toBe(`"${md5Of(data)}"`);
      expect(await head('small')).toMatchObject({
        Metadata: { md5sum: md5Of(data) },
        ContentLength: data.length,
        ContentType: 'application/x-squash',
        ETag: put.ETag,
        AcceptRanges: 'bytes',
      });
      expect((await s3.get('small')).content.equals(data)).toBe(true);
    });

    it('keeps the headers that readers are to get', async () => {
      const headers = {
        CacheControl: 'max-age=60',
        ContentDisposition: 'attachment; filename="a b"',
        ContentEncoding: 'gzip',
        ContentLanguage: 'de',
      };
      await s3.put('headers', 'x', { ...headers, Expires: new Date('2030-01-01T00:00:00Z') });
      expect(await head('headers')).toMatchObject({ ...headers, ExpiresString: 'Tue, 01 Jan 2030 00:00:00 GMT' });
    });

    it('stores the checksum that the SDK sends, and returns it', async () => {
      await s3.put('checksum', '123456789');
      expect((await head('checksum', { ChecksumMode: 'ENABLED' })).ChecksumCRC32).toBe('y/Q5Jg==');
      expect((await head('checksum')).ChecksumCRC32).toBeUndefined();
    });

    it('takes a stream in chunks with a trailer, and none of its framing', async () => {
      const body = Readable.from([data.subarray(0, 50_000), data.subarray(50_000)]);
      await s3.put('stream', body, { ContentLength: data.length });
      const { content, ContentEncoding } = await s3.get('stream');
      expect(content.equals(data)).toBe(true);
      expect(ContentEncoding).toBeUndefined();
    });

    it.each(['CRC32', 'CRC32C', 'CRC64NVME', 'SHA1', 'SHA256'] as const)(
      'takes a stream with %s',
      async (algorithm) => {
        await s3.put('stream', Readable.from([data]), { ContentLength: data.length, ChecksumAlgorithm: algorithm });
        const answer = await s3.get('stream', { ChecksumMode: 'ENABLED' });
        expect(answer.content.equals(data)).toBe(true);
        expect(answer[`Checksum${algorithm}`]).toEqual(expect.any(String));
      },
    );

    it('keeps an empty object', async () => {
      await s3.put('empty', '', { ContentLength: 0 });
      const { content, ETag } = await s3.get('empty');
      expect(content).toHaveLength(0);
      expect(ETag).toBe('"d41d8cd98f00b204e9800998ecf8427e"');
      await copy('empty-copy', 'empty');
      expect((await s3.get('empty-copy')).content).toHaveLength(0);
    });

    it('refuses a body with another md5', async () => {
      const wrong = Buffer.from(md5Of('other'), 'hex').toString('base64');
      expect(await outcomeOf(s3.put('bad', data, { ContentMD5: wrong }))).toBe('BadDigest 400');
      expect(await outcomeOf(s3.put('bad', data, { ContentMD5: 'c2hvcnQ=' }))).toBe('InvalidDigest 400');
      expect(await outcomeOf(s3.get('bad'))).toBe('NoSuchKey 404');
    });

    it('refuses a body with another checksum', async () => {
      expect(await outcomeOf(s3.put('bad', data, { ChecksumCRC32: 'AAAAAA==' }))).toBe('BadDigest 400');
      expect(await outcomeOf(s3.get('bad'))).toBe('NoSuchKey 404');
    });

    it('says what is missing', async () => {
      const missing = { Bucket: 'missing-bucket', Key: 'key' };
      expect(await outcomeOf(s3.get('missing'))).toBe('NoSuchKey 404');
      expect(await outcomeOf(head('missing'))).toBe('NotFound 404');
      expect(await outcomeOf(s3.client.send(new GetObjectCommand(missing)))).toBe('NoSuchBucket 404');
      expect(await outcomeOf(s3.client.send(new PutObjectCommand({ ...missing, Body: 'x' })))).toBe('NoSuchBucket 404');
      expect(await outcomeOf(s3.client.send(new HeadBucketCommand(missing)))).toBe('NotFound 404');
    });

    it('deletes what is there and what is not', async () => {
      await s3.put('gone', 'x');
      await remove('gone');
      expect(await outcomeOf(s3.get('gone'))).toBe('NoSuchKey 404');
      expect(await outcomeOf(remove('gone'))).toBe('ok');
    });

    it('deletes many at once', async () => {
      await putAll(['many/1', 'many/2', 'many/3']);
      const keys = ['many/1', 'many/2', 'many/missing'].map((Key) => ({ Key }));
      const answer = await s3.client.send(new DeleteObjectsCommand({ Bucket: BUCKET, Delete: { Objects: keys } }));
      expect(answer.Deleted).toEqual(keys);
      expect(answer.Errors).toBeUndefined();
      expect(await keysBelow('many/')).toEqual(['many/3']);
    });

    it('deletes many quietly, and names those that it does not delete', async () => {
      await putAll(['quiet/1', 'quiet/2', 'quiet/3']);
      const objects = [{ Key: 'quiet/1' }, { Key: 'quiet/2', ETag: '"other"' }, { Key: 'quiet/3', VersionId: 'v1' }];
      const answer = await s3.client.send(
        new DeleteObjectsCommand({ Bucket: BUCKET, Delete: { Objects: objects, Quiet: true } }),
      );
      expect(answer.Deleted).toBeUndefined();
      expect(answer.Errors?.map(({ Key, Code }) => [Key, Code])).toEqual([
        ['quiet/2', 'PreconditionFailed'],
        ['quiet/3', 'NoSuchVersion'],
      ]);
      expect(await keysBelow('quiet/')).toEqual(['quiet/2', 'quiet/3']);
    });
  });

  describe('keys', () => {
    it.each([
      'a b+ü/%20?&=.txt',
      "it's (1)*!~,@",
      'x//y',
      '/leading',
      'trailing/',
      'a%2Fb',
      'new\nline and\ttab',
      '日本語/🦊',
      '<&>"\'',
      '.',
      '..',
      '../../../../../../tmp/outside',
      '__proto__',
      'constructor',
      `${'x'.repeat(300)}/${'y'.repeat(300)}`,
      'ü'.repeat(512),
    ])('keeps %j', async (key) => {
      await s3.put(key, key);
      expect((await s3.get(key)).content.toString()).toBe(key);
      expect(await keysBelow(key)).toEqual([key]);
      await copy(`copy-of-key`, key.split('/').map(encodeURIComponent).join('/'));
      expect((await s3.get('copy-of-key')).content.toString()).toBe(key);
      await s3.client.send(new DeleteObjectsCommand({ Bucket: BUCKET, Delete: { Objects: [{ Key: key }] } }));
      expect(await keysBelow(key)).toEqual([]);
    });

    it('refuses a key of more than 1024 bytes', async () => {
      expect(await outcomeOf(s3.put(`${'ü'.repeat(512)}x`, 'x'))).toBe('KeyTooLongError 400');
    });

    it('keeps a key and one below it', async () => {
      await s3.put('k', '1');
      await s3.put('k/sub', '2');
      expect((await s3.get('k')).content.toString()).toBe('1');
      await remove('k');
      expect((await s3.get('k/sub')).content.toString()).toBe('2');
    });

    it('lists keys that XML cannot hold, escaped', async () => {
      await s3.put('control/\u0001 +ü', 'x');
      const { Contents, EncodingType } = await list({ Prefix: 'control/', EncodingType: 'url' });
      expect(EncodingType).toBe('url');
      expect(Contents?.map(({ Key }) => Key)).toEqual(['control/%01%20%2B%C3%BC']);
      expect(await keysBelow('control/')).toEqual(['control/\ufffd +ü']);
      await remove('control/\u0001 +ü');
    });
  });

  describe('ranges', () => {
    it('gives a part of an object', async () => {
      await s3.put('range', data);
      const { content, ContentRange, ContentLength } = await s3.get('range', { Range: 'bytes=5-9' });
      expect(content.equals(data.subarray(5, 10))).toBe(true);
      expect(ContentRange).toBe(`bytes 5-9/${data.length}`);
      expect(ContentLength).toBe(5);
      expect((await s3.get('range', { Range: 'bytes=-7' })).content.equals(data.subarray(-7))).toBe(true);
      expect((await s3.get('range', { Range: `bytes=${data.length - 3}-` })).content).toHaveLength(3);
    });

    it('refuses a range after the end', async () => {
      await s3.put('range', data);
      expect(await outcomeOf(s3.get('range', { Range: 'bytes=999999999-' }))).toBe('InvalidRange 416');
    });

    it('gives a range over the border of parts, however they came', async () => {
      const parts = [part, randomBytes(6 * MIB), randomBytes(10)];
      await s3.uploadInParts('range-parts', parts, [2, 0, 1]);
      const whole = Buffer.concat(parts);
      const borders = [
        [5 * MIB - 10, 5 * MIB + 9],
        [11 * MIB - 1, 11 * MIB],
        [0, whole.length - 1],
        [4 * MIB, whole.length - 2],
      ] as const;
      for (const [start, end] of borders)
        expect(
          (await s3.get('range-parts', { Range: `bytes=${start}-${end}` })).content.equals(
            whole.subarray(start, end + 1),
          ),
        ).toBe(true);
    });
  });

  describe('signatures', () => {
    const urlOf = (command: GetObjectCommand | PutObjectCommand, expiresIn = 60) =>
      getSignedUrl(s3.client, command, { expiresIn });

    it('gives an object by a presigned url', async () => {
      await s3.put('signed', data);
      const answer = await fetch(await urlOf(new GetObjectCommand({ Bucket: BUCKET, Key: 'signed' })));
      expect(answer.status).toBe(200);
      expect(Buffer.from(await answer.arrayBuffer()).equals(data)).toBe(true);
    });

    it('takes an object by a presigned url, with its metadata', async () => {
      const url = await urlOf(
        new PutObjectCommand({ Bucket: BUCKET, Key: 'signed-put', Metadata: { a: '1', 'a-b': '2' } }),
      );
      expect((await fetch(url, { method: 'PUT', body: 'hello' })).status).toBe(200);
      const { content, Metadata } = await s3.get('signed-put');
      expect(content.toString()).toBe('hello');
      expect(Metadata).toEqual({ a: '1', 'a-b': '2' });
    });

    it('refuses a presigned url for another key', async () => {
      const url = await urlOf(new GetObjectCommand({ Bucket: BUCKET, Key: 'signed' }));
      expect((await fetch(url.replace('signed?', 'small?'))).status).toBe(403);
    });

    it('refuses a presigned url that has expired', async () => {
      await s3.put('signed', data);
      const url = await urlOf(new GetObjectCommand({ Bucket: BUCKET, Key: 'signed' }), 1);
      expect((await fetch(url)).status).toBe(200);
      await sleep(2_100);
      expect((await fetch(url)).status).toBe(403);
    });

    it('sets headers of the answer that a presigned url names', async () => {
      await s3.put('signed', data, { ContentType: 'text/plain' });
      const named = {
        ResponseContentDisposition: 'attachment; filename="a.bin"',
        ResponseContentType: 'application/x',
      };
      const answer = await fetch(await urlOf(new GetObjectCommand({ Bucket: BUCKET, Key: 'signed', ...named })));
      await answer.arrayBuffer();
      expect(answer.headers.get('content-disposition')).toBe('attachment; filename="a.bin"');
      expect(answer.headers.get('content-type')).toBe('application/x');
    });

    it.each([
      ['secret key', { secretAccessKey: 'wrong' }, 'SignatureDoesNotMatch 403'],
      ['access key', { accessKeyId: 'wrong' }, 'InvalidAccessKeyId 403'],
    ])('refuses a wrong %s', async (_, wrong, outcome) => {
      const credentials = { accessKeyId: CREDENTIALS.accessKey, secretAccessKey: CREDENTIALS.secretKey, ...wrong };
      const client = makeClient(s3.server.endpoint, { credentials });
      const put = new PutObjectCommand({ Bucket: BUCKET, Key: 'intruder', Body: 'x' });
      expect(await outcomeOf(client.send(put))).toBe(outcome);
      expect(await outcomeOf(s3.get('intruder'))).toBe('NoSuchKey 404');
      client.destroy();
    });
  });

  describe('conditions', () => {
    it('reads only what is as the reader knows it, or only what is not', async () => {
      const { ETag } = await s3.put('condition', 'x');
      expect(await outcomeOf(s3.get('condition', { IfMatch: '"other"' }))).toBe('PreconditionFailed 412');
      expect(await outcomeOf(s3.get('condition', { IfMatch: `"other", ${ETag}` }))).toBe('ok');
      expect(await outcomeOf(s3.get('condition', { IfNoneMatch: ETag }))).toMatch(/ 304$/);
      expect(await outcomeOf(s3.get('condition', { IfNoneMatch: '"other"' }))).toBe('ok');
      const [past, future] = [new Date(Date.now() - 60_000), new Date(Date.now() + 60_000)];
      expect(await outcomeOf(s3.get('condition', { IfModifiedSince: future }))).toMatch(/ 304$/);
      expect(await outcomeOf(s3.get('condition', { IfModifiedSince: past }))).toBe('ok');
      expect(await outcomeOf(s3.get('condition', { IfUnmodifiedSince: past }))).toBe('PreconditionFailed 412');
      expect(await outcomeOf(s3.get('condition', { IfUnmodifiedSince: future }))).toBe('ok');
    });

    it('lets etags win over dates', async () => {
      const { ETag } = await s3.put('condition', 'x');
      const [past, future] = [new Date(Date.now() - 60_000), new Date(Date.now() + 60_000)];
      expect(await outcomeOf(s3.get('condition', { IfMatch: ETag, IfUnmodifiedSince: past }))).toBe('ok');
      expect(await outcomeOf(s3.get('condition', { IfNoneMatch: '"other"', IfModifiedSince: future }))).toBe('ok');
    });

    it('writes only what is not there, or only over what the writer knows', async () => {
      const { ETag } = await s3.put('write-condition', 'old');
      expect(await outcomeOf(s3.put('write-condition', 'new', { IfNoneMatch: '*' }))).toBe('PreconditionFailed 412');
      expect(await outcomeOf(s3.put('write-condition', 'new', { IfMatch: '"other"' }))).toBe('PreconditionFailed 412');
      expect((await s3.get('write-condition')).content.toString()).toBe('old');
      expect(await outcomeOf(s3.put('write-condition', 'new', { IfMatch: ETag }))).toBe('ok');
      expect(await outcomeOf(s3.put('write-condition-new', 'new', { IfNoneMatch: '*' }))).toBe('ok');
      expect(await outcomeOf(s3.put('write-condition-missing', 'new', { IfMatch: ETag }))).toBe(
        'PreconditionFailed 412',
      );
    });

    it('lets one of many writers make an object', async () => {
      const puts = Array.from({ length: 8 }, (_, index) =>
        outcomeOf(s3.put('only-one', `${index}`, { IfNoneMatch: '*' })),
      );
      const outcomes = await Promise.all(puts);
      expect(outcomes.toSorted()).toEqual([...Array<string>(7).fill('PreconditionFailed 412'), 'ok']);
      expect((await s3.get('only-one')).content.toString()).toBe(`${outcomes.indexOf('ok')}`);
    });

    it('deletes only what the writer knows', async () => {
      await s3.put('delete-condition', 'x');
      const other = new DeleteObjectCommand({ Bucket: BUCKET, Key: 'delete-condition', IfMatch: '"other"' });
      expect(await outcomeOf(s3.client.send(other))).toBe('PreconditionFailed 412');
      expect(await outcomeOf(s3.get('delete-condition'))).toBe('ok');
    });
  });

  describe('copies', () => {
    beforeAll(() => s3.put('source', data, { Metadata: { md5sum: md5Of(data) }, ContentEncoding: 'gzip' }));

    it('keep metadata and headers', async () => {
      const { CopyObjectResult } = await copy('copy', 'source');
      expect(CopyObjectResult?.ETag).toBe(`"${md5Of(data)}"`);
      expect(await head('copy')).toMatchObject({ Metadata: { md5sum: md5Of(data) }, ContentEncoding: 'gzip' });
      expect((await s3.get('copy')).content.equals(data)).toBe(true);
    });

    it('replace metadata and headers', async () => {
      await copy('copy', 'source', { MetadataDirective: 'REPLACE', Metadata: { x: '1' }, ContentType: 'text/plain' });
      const { Metadata, ContentType, ContentEncoding } = await head('copy');
      expect({ Metadata, ContentType, ContentEncoding }).toEqual({
        Metadata: { x: '1' },
        ContentType: 'text/plain',
        ContentEncoding: undefined,
      });
    });

    it('replace the metadata of an object in place', async () => {
      await copy('in-place', 'source');
      expect(await outcomeOf(copy('in-place', 'in-place'))).toBe('InvalidRequest 400');
      await copy('in-place', 'in-place', { MetadataDirective: 'REPLACE', Metadata: { y: '2' } });
      const { content, Metadata } = await s3.get('in-place');
      expect(content.equals(data)).toBe(true);
      expect(Metadata).toEqual({ y: '2' });
    });

    it('outlive their source, and are outlived by it', async () => {
      await s3.put('short-lived', data);
      await copy('long-lived', 'short-lived');
      await remove('short-lived');
      expect((await s3.get('long-lived')).content.equals(data)).toBe(true);
      await copy('other', 'long-lived');
      await remove('other');
      expect((await s3.get('long-lived')).content.equals(data)).toBe(true);
    });

    it('need a source', async () => {
      expect(await outcomeOf(copy('copy-of-missing', 'missing'))).toBe('NoSuchKey 404');
      expect(await outcomeOf(copy('x', 'y', { CopySource: 'missing-bucket/y' }))).toBe('NoSuchBucket 404');
      expect(await outcomeOf(copy('x', 'y', { CopySource: 'nonsense' }))).toBe('InvalidArgument 400');
      expect(await outcomeOf(copy('x', 'source?versionId=v1'))).toBe('NoSuchVersion 404');
    });

    it('are made on conditions', async () => {
      const etag = `"${md5Of(data)}"`;
      const [past, future] = [new Date(Date.now() - 60_000), new Date(Date.now() + 60_000)];
      const refused: Partial<CopyObjectCommandInput>[] = [
        { CopySourceIfMatch: '"other"' },
        { CopySourceIfNoneMatch: etag },
        { CopySourceIfModifiedSince: future },
        { CopySourceIfUnmodifiedSince: past },
      ];
      for (const condition of refused)
        expect(await outcomeOf(copy('condition-copy', 'source', condition))).toBe('PreconditionFailed 412');
      expect(await outcomeOf(s3.get('condition-copy'))).toBe('NoSuchKey 404');
      const taken = { CopySourceIfMatch: etag, CopySourceIfUnmodifiedSince: past };
      expect(await outcomeOf(copy('condition-copy', 'source', taken))).toBe('ok');
    });
  });

  describe('lists', () => {
    const NUMBERS = Array.from({ length: 7 }, (_, index) => `list/${index}/x`);
    beforeAll(() => putAll([...NUMBERS, 'list/0/y', 'list/7']));

    it('group keys by a delimiter', async () => {
      const answer = await list({ Prefix: 'list/', Delimiter: '/' });
      expect(answer.CommonPrefixes?.map(({ Prefix }) => Prefix)).toEqual(NUMBERS.map((key) => key.slice(0, -1)));
      expect(answer.Contents?.map(({ Key }) => Key)).toEqual(['list/7']);
      expect(answer.KeyCount).toBe(8);
      expect(answer.Contents?.[0]).toMatchObject({ Size: 1, ETag: `"${md5Of('x')}"`, StorageClass: 'STANDARD' });
    });

    it.each([1, 2, 3, 8, 9])('come in pages of %d', async (size) => {
      for (const delimiter of [undefined, '/']) {
        const names: string[] = [];
        let token: string | undefined;
        let pages = 0;
        do {
          const page = await list({ Prefix: 'list/', MaxKeys: size, ContinuationToken: token, Delimiter: delimiter });
          names.push(...(page.Contents ?? []).map(({ Key }) => Key!));
          names.push(...(page.CommonPrefixes ?? []).map(({ Prefix }) => Prefix!));
          expect(page.IsTruncated).toBe(page.NextContinuationToken !== undefined);
          token = page.NextContinuationToken;
          pages++;
        } while (token);
        const all = delimiter
          ? [...NUMBERS.map((key) => key.slice(0, -1)), 'list/7']
          : [...NUMBERS, 'list/0/y', 'list/7'];
        expect(names.toSorted()).toEqual(all.toSorted());
        expect(pages).toBe(Math.ceil(all.length / size));
      }
    });

    it('begin after a key', async () => {
      const { Contents, StartAfter } = await list({ Prefix: 'list/', StartAfter: 'list/5/x' });
      expect(Contents?.map(({ Key }) => Key)).toEqual(['list/6/x', 'list/7']);
      expect(StartAfter).toBe('list/5/x');
    });

    it('can be asked for nothing', async () => {
      const { KeyCount, IsTruncated } = await list({ Prefix: 'list/', MaxKeys: 0 });
      expect({ KeyCount, IsTruncated }).toEqual({ KeyCount: 0, IsTruncated: false });
    });

    it('come in the first version of the protocol', async () => {
      const pages: (string | undefined)[][] = [];
      let marker: string | undefined;
      do {
        const page = await s3.client.send(
          new ListObjectsCommand({ Bucket: BUCKET, Prefix: 'list/', Delimiter: '/', MaxKeys: 3, Marker: marker }),
        );
        pages.push([
          ...(page.CommonPrefixes ?? []).map(({ Prefix }) => Prefix),
          ...(page.Contents ?? []).map(({ Key }) => Key),
        ]);
        marker = page.NextMarker;
      } while (marker);
      expect(pages).toEqual([
        ['list/0/', 'list/1/', 'list/2/'],
        ['list/3/', 'list/4/', 'list/5/'],
        ['list/6/', 'list/7'],
      ]);
    });

    it('are in the order of bytes, not of UTF-16', async () => {
      const keys = ['order/B', 'order/a', 'order/a!', 'order/a/b', 'order/é', 'order/\ufb01', 'order/🦊'];
      await putAll(keys.toReversed());
      expect(await keysBelow('order/')).toEqual(keys);
    });
  });

  describe('uploads in parts', () => {
    it('make one object of parts, with the etag of S3', async () => {
      const parts = [part, randomBytes(5 * MIB), randomBytes(12_345)];
      const { ETag } = await s3.uploadInParts('parts', parts);
      expect(ETag).toBe(etagOf(...parts));
      const { content, ETag: readTag } = await s3.get('parts');
      expect(readTag).toBe(ETag);
      expect(content.equals(Buffer.concat(parts))).toBe(true);
    });

    it('take a part again: the last one counts', async () => {
      const id = await s3.createUpload('again');
      await s3.uploadPart('again', id, 1, randomBytes(5 * MIB));
      const second = await s3.uploadPart('again', id, 2, 'tail');
      const first = await s3.uploadPart('again', id, 1, part);
      await s3.complete('again', id, [first, second]);
      expect((await s3.get('again')).content.equals(Buffer.concat([part, Buffer.from('tail')]))).toBe(true);
    });

    it('take an empty last part', async () => {
      await s3.uploadInParts('empty-tail', [part, Buffer.alloc(0)]);
      expect((await s3.get('empty-tail')).content.equals(part)).toBe(true);
    });

    it('use only the parts that are named, and give back the space of the others', async () => {
      const id = await s3.createUpload('subset');
      const first = await s3.uploadPart('subset', id, 1, part);
      await s3.uploadPart('subset', id, 2, randomBytes(MIB));
      await s3.complete('subset', id, [first]);
      expect((await s3.get('subset')).content.equals(part)).toBe(true);
      expect(await s3.server.localFile(BUCKET, 'subset')).toContain(id);
      const other = await s3.createUpload('subset');
      await s3.uploadPart('subset', other, 1, 'abc');
      await s3.complete('subset', other, [await s3.uploadPart('subset', other, 2, 'def')]);
      expect((await s3.get('subset')).content.toString()).toBe('def');
    });

    it('are refused with parts that are missing, different, out of order or too small', async () => {
      const id = await s3.createUpload('refused');
      const parts = [await s3.uploadPart('refused', id, 1, 'abc'), await s3.uploadPart('refused', id, 2, 'def')];
      const wrong = { PartNumber: 1, ETag: '"00000000000000000000000000000000"' };
      expect(await outcomeOf(s3.complete('refused', id, [wrong]))).toBe('InvalidPart 400');
      expect(await outcomeOf(s3.complete('refused', id, [{ PartNumber: 3, ETag: parts[0]!.ETag }]))).toBe(
        'InvalidPart 400',
      );
      expect(await outcomeOf(s3.complete('refused', id, parts.toReversed()))).toBe('InvalidPartOrder 400');
      expect(await outcomeOf(s3.complete('refused', id, [parts[0]!, parts[0]!]))).toBe('InvalidPartOrder 400');
      expect(await outcomeOf(s3.complete('refused', id, parts))).toBe('EntityTooSmall 400');
      expect(await outcomeOf(s3.complete('refused', id, []))).toBe('MalformedXML 400');
      expect(await outcomeOf(s3.get('refused'))).toBe('NoSuchKey 404');
      expect(await outcomeOf(s3.complete('refused', id, [parts[1]!]))).toBe('ok');
    });

    it.each([0, 10_001])('refuse a part with the number %d', async (number) => {
      const id = await s3.createUpload('number');
      expect(await outcomeOf(s3.uploadPart('number', id, number, 'x'))).toBe('InvalidArgument 400');
      await s3.client.send(new AbortMultipartUploadCommand({ Bucket: BUCKET, Key: 'number', UploadId: id }));
    });

    it('can be listed, and aborted', async () => {
      const id = await s3.createUpload('aborted');
      const upload = { Bucket: BUCKET, Key: 'aborted', UploadId: id };
      for (const number of [3, 1, 2]) await s3.uploadPart('aborted', id, number, `part ${number}`);
      const first = await s3.client.send(new ListPartsCommand({ ...upload, MaxParts: 2 }));
      expect(first.Parts?.map(({ PartNumber, Size, ETag }) => [PartNumber, Size, ETag])).toEqual([
        [1, 6, `"${md5Of('part 1')}"`],
        [2, 6, `"${md5Of('part 2')}"`],
      ]);
      expect(first.IsTruncated).toBe(true);
      const rest = await s3.client.send(
        new ListPartsCommand({ ...upload, PartNumberMarker: first.NextPartNumberMarker }),
      );
      expect(rest.Parts?.map(({ PartNumber }) => PartNumber)).toEqual([3]);
      const { Uploads } = await s3.client.send(new ListMultipartUploadsCommand({ Bucket: BUCKET, Prefix: 'abo' }));
      expect(Uploads?.map(({ UploadId }) => UploadId)).toEqual([id]);
      await s3.client.send(new AbortMultipartUploadCommand(upload));
      expect(await outcomeOf(s3.uploadPart('aborted', id, 4, 'x'))).toBe('NoSuchUpload 404');
      expect(await outcomeOf(s3.client.send(new AbortMultipartUploadCommand(upload)))).toBe('NoSuchUpload 404');
      // The answer does not wait for the disk.
      await until('the parts are gone', async () => !(await s3.blobs()).includes(id));
    });

    it('are listed in pages', async () => {
      const ids = [await s3.createUpload('page/a'), await s3.createUpload('page/a'), await s3.createUpload('page/b c')];
      const seen: string[] = [];
      let markers: { KeyMarker?: string; UploadIdMarker?: string } = {};
      for (let isTruncated = true; isTruncated;) {
        const page = await s3.client.send(
          new ListMultipartUploadsCommand({ Bucket: BUCKET, Prefix: 'page/', MaxUploads: 1, ...markers }),
        );
        seen.push(...(page.Uploads ?? []).map(({ UploadId }) => UploadId!));
        isTruncated = page.IsTruncated ?? false;
        markers = { KeyMarker: page.NextKeyMarker!, UploadIdMarker: page.NextUploadIdMarker! };
      }
      expect(seen.toSorted()).toEqual(ids.toSorted());
      for (const [index, id] of ids.entries())
        await s3.client.send(
          new AbortMultipartUploadCommand({ Bucket: BUCKET, Key: index < 2 ? 'page/a' : 'page/b c', UploadId: id }),
        );
    });

    it('are bound to their key', async () => {
      const id = await s3.createUpload('bound');
      expect(await outcomeOf(s3.uploadPart('other', id, 1, 'x'))).toBe('NoSuchUpload 404');
      await s3.client.send(new AbortMultipartUploadCommand({ Bucket: BUCKET, Key: 'bound', UploadId: id }));
    });

    it('are completed once, also by two at once', async () => {
      const id = await s3.createUpload('twice');
      const parts = [await s3.uploadPart('twice', id, 1, part)];
      const outcomes = await Promise.all([1, 2].map(() => outcomeOf(s3.complete('twice', id, parts))));
      expect(outcomes.toSorted()).toEqual(['NoSuchUpload 404', 'ok']);
      expect((await s3.get('twice')).content.equals(part)).toBe(true);
    });

    it('take parts of other objects', async () => {
      await s3.put('part-source', data);
      await s3.uploadInParts('large-part-source', [part, Buffer.from('tail')]);
      const id = await s3.createUpload('copied-parts');
      const upload = { Bucket: BUCKET, Key: 'copied-parts', UploadId: id };
      const copyPart = async (number: number, source: string, range?: string) => {
        const from = { CopySource: `${BUCKET}/${source}`, CopySourceRange: range };
        const { CopyPartResult } = await s3.client.send(
          new UploadPartCopyCommand({ ...upload, PartNumber: number, ...from }),
        );
        return { PartNumber: number, ETag: CopyPartResult?.ETag };
      };
      const parts = [
        await copyPart(1, 'large-part-source', `bytes=4-${5 * MIB + 3}`),
        await copyPart(2, 'part-source'),
      ];
      for (const range of ['bytes=0-100000', 'bytes=9-3'])
        expect(await outcomeOf(copyPart(3, 'part-source', range))).toBe('InvalidRange 416');
      expect(await outcomeOf(copyPart(3, 'part-source', 'bytes=5-'))).toBe('InvalidArgument 400');
      expect(await outcomeOf(copyPart(10_001, 'part-source'))).toBe('InvalidArgument 400');
      await s3.complete('copied-parts', id, parts);
      const expected = Buffer.concat([part.subarray(4), Buffer.from('tail'), data]);
      expect((await s3.get('copied-parts')).content.equals(expected)).toBe(true);
    });

    it('are completed on a condition, and may be completed after it failed', async () => {
      const { ETag } = await s3.put('upload-condition', 'old');
      const id = await s3.createUpload('upload-condition');
      const parts = [await s3.uploadPart('upload-condition', id, 1, 'new')];
      const path = `${BUCKET}/upload-condition`;
      const body = `<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>${parts[0]!.ETag}</ETag></Part></CompleteMultipartUpload>`;
      const complete = { method: 'POST', path, query: [['uploadId', id]] as [string, string][], body };
      expect((await s3.send({ ...complete, headers: { 'if-none-match': '*' } })).code).toBe('PreconditionFailed');
      expect((await s3.get('upload-condition')).content.toString()).toBe('old');
      expect((await s3.send({ ...complete, headers: { 'if-match': ETag! } })).status).toBe(200);
      expect((await s3.get('upload-condition')).content.toString()).toBe('new');
    });
  });

  describe('buckets', () => {
    const bucket = (name: string) => ({ Bucket: name });

    it('are made, listed and deleted', async () => {
      await s3.client.send(new CreateBucketCommand(bucket('short-lived')));
      expect(await outcomeOf(s3.client.send(new CreateBucketCommand(bucket('short-lived'))))).toBe(
        'BucketAlreadyOwnedByYou 409',
      );
      const { Buckets } = await s3.client.send(new ListBucketsCommand({}));
      expect(Buckets?.map(({ Name }) => Name)).toEqual([BUCKET, 'short-lived']);
      await s3.client.send(new DeleteBucketCommand(bucket('short-lived')));
      expect(await outcomeOf(s3.client.send(new HeadBucketCommand(bucket('short-lived'))))).toBe('NotFound 404');
    });

    it('are not deleted with objects in them', async () => {
      await s3.put('in-bucket', 'x');
      expect(await outcomeOf(s3.client.send(new DeleteBucketCommand(bucket(BUCKET))))).toBe('BucketNotEmpty 409');
    });

    it('take their uploads with them', async () => {
      const name = 'with-uploads';
      await s3.client.send(new CreateBucketCommand(bucket(name)));
      const { body } = await s3.send({ method: 'POST', path: `${name}/key`, query: [['uploads', '']] });
      const id = /<UploadId>(.*)<\/UploadId>/.exec(body.toString())![1]!;
      const query: [string, string][] = [
        ['partNumber', '1'],
        ['uploadId', id],
      ];
      expect((await s3.send({ method: 'PUT', path: `${name}/key`, query, body: 'x' })).status).toBe(200);
      await s3.client.send(new DeleteBucketCommand(bucket(name)));
      await s3.client.send(new CreateBucketCommand(bucket(name)));
      expect((await s3.client.send(new ListMultipartUploadsCommand(bucket(name)))).Uploads).toBeUndefined();
      await s3.client.send(new DeleteBucketCommand(bucket(name)));
      expect(await s3.blobs()).not.toContain(id);
    });

    it.each(['Upper', 'ab', '-dash', 'under_score', 'x'.repeat(64)])(
      'have names that are host names, unlike %s',
      async (name) => {
        expect(await outcomeOf(s3.client.send(new CreateBucketCommand(bucket(name))))).toBe('InvalidBucketName 400');
      },
    );

    it('have the settings of a new bucket', async () => {
      expect((await s3.client.send(new GetBucketLocationCommand(bucket(BUCKET)))).LocationConstraint).toBeUndefined();
      expect((await s3.client.send(new GetBucketVersioningCommand(bucket(BUCKET)))).Status).toBeUndefined();
      expect((await s3.client.send(new GetBucketAclCommand(bucket(BUCKET)))).Grants).toHaveLength(1);
      expect(await outcomeOf(s3.client.send(new GetBucketPolicyCommand(bucket(BUCKET))))).toBe(
        'NoSuchBucketPolicy 404',
      );
    });
  });

  describe('at the same time', () => {
    it('keeps the old object where a put is broken off', async () => {
      await s3.put('broken-off', 'old content');
      const url = await getSignedUrl(s3.client, new PutObjectCommand({ Bucket: BUCKET, Key: 'broken-off' }), {
        expiresIn: 60,
      });
      const request = httpRequest(url, { method: 'PUT', headers: { 'content-length': 1_000_000 } });
      const ended = new Promise((resolve) => request.once('close', resolve));
      request.on('error', () => {});
      request.write(randomBytes(400_000));
      await sleep(200);
      request.destroy();
      await ended;
      await sleep(200);
      expect((await s3.get('broken-off')).content.toString()).toBe('old content');
    });

    it('shows readers the old or the new object, never a mixture', async () => {
      const bodies = Array.from({ length: 8 }, (_, index) => Buffer.alloc(600_000, 65 + index));
      await s3.put('race', bodies[0]!);
      const written = new AbortController();
      const write = async () => {
        for (let index = 0; index < 8; index++) await s3.put('race', bodies[index]!);
      };
      const read = async () => {
        let reads = 0;
        for (; !written.signal.aborted || !reads; reads++) {
          const { content, ETag } = await s3.get('race');
          expect(ETag).toBe(`"${md5Of(content)}"`);
          expect(bodies.some((body) => body.equals(content))).toBe(true);
        }
      };
      const readers = Promise.all([read(), read(), read()]);
      await Promise.all([write(), write(), write(), write()]);
      written.abort();
      await readers;
    });

    it('takes a hundred objects at once', async () => {
      const keys = Array.from({ length: 100 }, (_, index) => `parallel/${index % 5}/d${index}/f`);
      await Promise.all(keys.map((key) => s3.put(key, key)));
      expect(await keysBelow('parallel/')).toEqual(keys.toSorted());
      const contents = await Promise.all(keys.map((key) => s3.get(key)));
      expect(contents.map(({ content }) => content.toString())).toEqual(keys);
    });

    it('loses nothing where others put and delete beside it', async () => {
      const turns = async (key: string) => {
        for (let turn = 0; turn < 15; turn++) {
          await s3.put(key, `${turn}`);
          expect((await s3.get(key)).content.toString()).toBe(`${turn}`);
          await remove(key);
        }
      };
      await Promise.all(Array.from({ length: 6 }, (_, index) => turns(`beside/${index}`)));
      expect(await keysBelow('beside/')).toEqual([]);
    });

    it('gives a reader all of an object that is deleted meanwhile', async () => {
      const large = randomBytes(16 * MIB);
      await s3.put('deleted-while-read', large);
      const answer = await s3.client.send(new GetObjectCommand({ Bucket: BUCKET, Key: 'deleted-while-read' }));
      await remove('deleted-while-read');
      expect(Buffer.from(await answer.Body!.transformToByteArray()).equals(large)).toBe(true);
    });

    it('refuses to delete a bucket that an object is just put into, or refuses the object', async () => {
      for (let turn = 0; turn < 10; turn++) {
        const name = `racing-${turn}`;
        await s3.client.send(new CreateBucketCommand({ Bucket: name }));
        const put = outcomeOf(s3.client.send(new PutObjectCommand({ Bucket: name, Key: 'key', Body: 'x' })));
        await sleep(turn);
        const deleted = await outcomeOf(s3.client.send(new DeleteBucketCommand({ Bucket: name })));
        expect([await put, deleted]).toEqual(
          deleted === 'ok' ? ['NoSuchBucket 404', 'ok'] : ['ok', 'BucketNotEmpty 409'],
        );
        const isThere = await outcomeOf(s3.client.send(new GetObjectCommand({ Bucket: name, Key: 'key' })));
        expect(isThere).toBe(deleted === 'ok' ? 'NoSuchBucket 404' : 'ok');
        if (deleted !== 'ok') await s3.client.send(new DeleteObjectCommand({ Bucket: name, Key: 'key' }));
      }
    });
  });

  it('keeps no content that nothing refers to', async () => {
    const { Contents = [] } = await list({});
    for (const { Key } of Contents) await remove(Key!);
    await sleep(100);
    expect(await s3.blobs()).toEqual([]);
  });
});
