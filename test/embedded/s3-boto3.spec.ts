import { execFile } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { promisify } from 'node:util';
import { CREDENTIALS, S3UnderTest } from '../support/s3-under-test.js';

const run = promisify(execFile);
const PYTHON = '/usr/bin/python3';
const SCRIPT = path.join(import.meta.dirname, 's3-boto3.py');

/** What the clients of the service use, craycli and the job containers of old among them. */
describe('embedded S3 server and boto3', () => {
  let s3: S3UnderTest;
  let directory: string;
  let seen: Record<string, unknown>;

  beforeAll(async () => {
    await run(PYTHON, ['-c', 'import boto3']).catch(() => {
      throw new Error(`this test needs boto3 for ${PYTHON}: install it with "apt-get install python3-boto3"`);
    });
    s3 = await S3UnderTest.start();
    directory = await mkdtemp(path.join(tmpdir(), 'ims-boto3-'));
    const { accessKey, secretKey } = CREDENTIALS;
    // A home without configuration, so that nobody's own settings count.
    const env = { PATH: process.env['PATH'], HOME: directory, AWS_EC2_METADATA_DISABLED: 'true' };
    const { stdout } = await run(PYTHON, [SCRIPT, s3.server.endpoint, accessKey, secretKey, 'boto3', directory], {
      env,
    });
    seen = JSON.parse(stdout) as Record<string, unknown>;
  }, 60_000);
  afterAll(async () => {
    await s3?.close();
    if (directory) await rm(directory, { recursive: true, force: true });
  });

  it('puts, gets and heads an object', () => {
    expect(seen['small_object']).toEqual({
      etag_is_md5: true,
      same: true,
      metadata_is_md5: true,
      length: 100_000,
      type: 'application/x-test',
      same_range: true,
      content_range: 'bytes 10-19/100000',
    });
  });

  it('transfers a small file whole', () => {
    expect(seen['transfer_of_1_mib']).toEqual({
      same: true,
      metadata: { size: '1048576' },
      etag_of_parts: false,
      etag_of_whole: true,
      uploads_left: 0,
    });
  });

  it('transfers a large file in parts', () => {
    expect(seen['transfer_of_18_mib']).toEqual({
      same: true,
      metadata: { size: String(18 * 1024 * 1024 + 123) },
      etag_of_parts: true,
      etag_of_whole: false,
      uploads_left: 0,
    });
  });

  it('sends a stream', () => {
    expect(seen['stream']).toEqual({ same: true });
  });

  it('copies objects, whole and in parts', () => {
    expect(seen['copies']).toEqual({
      same: true,
      metadata: { a: '1' },
      changed_metadata: { b: '2' },
      managed_length: 12 * 1024 * 1024,
      missing: 'NoSuchKey',
    });
  });

  it('lists objects in pages, with keys as they are', () => {
    expect(seen['lists']).toEqual({ pages: [10, 10, 5], same: true, same_in_version_1: true, prefixes: 25 });
  });

  it('deletes objects, one and many', () => {
    expect(seen['deletions']).toEqual({ same: true, left: 0, deleted: '404', again: null });
  });

  it('presigns urls', () => {
    expect(seen['presigned']).toEqual({ put: 200, get: [200, 'by url'], other_method: 403, other_key: 403 });
  });

  it('understands errors', () => {
    expect(seen['errors']).toEqual({
      missing_key: 'NoSuchKey',
      missing_bucket: 'NoSuchBucket',
      existing_bucket: 'BucketAlreadyOwnedByYou',
      full_bucket: 'BucketNotEmpty',
      wrong_secret: 'SignatureDoesNotMatch',
      not_modified: '304',
    });
  });
});
