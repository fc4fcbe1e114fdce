import { createHash, randomBytes, randomUUID } from 'node:crypto';
import { mkdir, mkdtemp, readdir, readFile, rm, statfs, writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { Readable } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import {
  AbortMultipartUploadCommand,
  CopyObjectCommand,
  DeleteObjectCommand,
  GetObjectCommand,
  ListMultipartUploadsCommand,
  ListObjectsV2Command,
} from '@aws-sdk/client-s3';
import { type S3Server, startS3Server } from '../../src/embedded/s3/s3-server.js';
import { BUCKET, CREDENTIALS, md5Of, MIB, outcomeOf, S3Child, S3Session } from '../support/s3-under-test.js';

/** What a key holds: the md5 of its content, or null for nothing. */
type State = string | null;

/** What may be found at a key after a crash: what was acknowledged last, or what was asked for since. */
interface Expected {
  acknowledged: State;
  asked: State;
}

/** Writes of many kinds, each of which says what it was about to do before, and what it did after. */
class Workload {
  readonly expected = new Map<string, Expected>();
  acknowledgements = 0;

  constructor(private readonly s3: S3Session) {}

  /** Works until the server is gone. */
  async run(): Promise<void> {
    const workers = [
      ...[1, 2, 3].map((number) => this.repeat((turn) => this.putSmall(`small/${number}/${turn % 5}`))),
      this.repeat((turn) => this.putLarge(`large/${turn % 2}`)),
      this.repeat((turn) => this.upload(`parts/${turn % 2}`)),
      this.repeat(() => this.copyAndDelete('copied/source', 'copied/copy')),
    ];
    await Promise.all(workers);
  }

  private async repeat(work: (turn: number) => Promise<unknown>): Promise<void> {
    for (let turn = 0; ; turn++)
      try {
        await work(turn);
      } catch {
        return;
      }
  }

  private async write(key: string, state: State, request: () => Promise<unknown>): Promise<void> {
    const acknowledged = this.expected.get(key)?.acknowledged ?? null;
    this.expected.set(key, { acknowledged, asked: state });
    await request();
    this.expected.set(key, { acknowledged: state, asked: state });
    this.acknowledgements++;
  }

  private putSmall(key: string) {
    const content = randomBytes(10_000);
    return this.write(key, md5Of(content), () => this.s3.put(key, content));
  }

  private putLarge(key: string) {
    const content = randomBytes(3 * MIB);
    return this.write(key, md5Of(content), () => this.s3.put(key, content));
  }

  private upload(key: string) {
    const parts = [randomBytes(5 * MIB), randomBytes(MIB)];
    return this.write(key, md5Of(Buffer.concat(parts)), () => this.s3.uploadInParts(key, parts));
  }

  private async copyAndDelete(source: string, copy: string): Promise<void> {
    const content = randomBytes(20_000);
    const CopySource = `${BUCKET}/${source}`;
    await this.write(source, md5Of(content), () => this.s3.put(source, content));
    await this.write(copy, md5Of(content), () =>
      this.s3.client.send(new CopyObjectCommand({ Bucket: BUCKET, Key: copy, CopySource })),
    );
    await this.write(source, null, () => remove(this.s3, source));
  }
}

const remove = (s3: S3Session, key: string) => s3.client.send(new DeleteObjectCommand({ Bucket: BUCKET, Key: key }));

async function keysOf({ client }: S3Session): Promise<string[]> {
  const { Contents = [], IsTruncated } = await client.send(new ListObjectsV2Command({ Bucket: BUCKET }));
  expect(IsTruncated).toBe(false);
  return Contents.map(({ Key }) => Key!);
}

async function removeAll(s3: S3Session): Promise<void> {
  for (const key of await keysOf(s3)) await remove(s3, key);
  const { Uploads = [] } = await s3.client.send(new ListMultipartUploadsCommand({ Bucket: BUCKET }));
  for (const { Key, UploadId } of Uploads)
    await s3.client.send(new AbortMultipartUploadCommand({ Bucket: BUCKET, Key, UploadId }));
}

async function untilEmpty(directory: string): Promise<void> {
  for (let tries = 0; tries < 100 && (await readdir(directory)).length; tries++) await sleep(20);
  expect(await readdir(directory)).toEqual([]);
}

describe('embedded S3 server', () => {
  let directory: string;
  const children: S3Child[] = [];
  const servers: S3Server[] = [];
  const sessions: S3Session[] = [];
  const inside = (...names: string[]) => path.join(directory, ...names);

  const startChild = async (prefix?: string[]) => {
    const child = await S3Child.start(directory, prefix);
    children.push(child);
    return child;
  };
  const start = async (options: { reserveBytes?: number; staleUploadSeconds?: number; port?: number } = {}) => {
    const server = await startS3Server({ directory, credentials: CREDENTIALS, ...options });
    const s3 = new S3Session(server.endpoint);
    servers.push(server);
    sessions.push(s3);
    return { server, s3 };
  };

  beforeEach(async () => {
    directory = await mkdtemp(path.join(tmpdir(), 'ims-s3-durability-'));
  });
  afterEach(async () => {
    for (const child of children.splice(0)) await child.kill();
    for (const { client } of sessions.splice(0)) client.destroy();
    for (const server of servers.splice(0)) await server.close();
    await rm(directory, { recursive: true, force: true });
  });

  describe('that is killed', () => {
    it('has every acknowledged object, no half of another, and no temporary file', async () => {
      const expected = new Map<string, Expected>();
      let acknowledgements = 0;
      for (const life of [150, 300, 500, 800, 0]) {
        const s3 = await startChild();
        expect(await readdir(inside('temporary'))).toEqual([]);
        if (!expected.size) await s3.createBucket();
        const found = await keysOf(s3);
        for (const key of found) {
          const { acknowledged, asked } = expected.get(key)!;
          expect([acknowledged, asked]).toContain(md5Of((await s3.get(key)).content));
        }
        for (const [key, { acknowledged, asked }] of expected)
          if (acknowledged !== null && asked !== null) expect(found).toContain(key);
        await removeAll(s3);
        await untilEmpty(inside('blobs'));
        expect(await readdir(inside('uploads'))).toEqual([]);
        expect(s3.output).toBe('');
        if (!life) break;
        const workload = new Workload(s3);
        const work = workload.run();
        await sleep(life);
        await s3.kill();
        await work;
        expect(workload.expected.size).toBeGreaterThan(3);
        acknowledgements += workload.acknowledgements;
        expected.clear();
        for (const [key, states] of workload.expected) expected.set(key, states);
      }
      expect(acknowledgements).toBeGreaterThan(50);
    });

    it('goes on with an upload whose parts had come', async () => {
      const before = await startChild();
      await before.createBucket();
      const parts = [randomBytes(5 * MIB), randomBytes(5 * MIB), randomBytes(1000)];
      const id = await before.createUpload('key');
      const sent = [await before.uploadPart('key', id, 1, parts[0]!)];
      await before.uploadPart('key', id, 2, 'another content');
      await before.kill();
      const after = await startChild();
      for (const number of [2, 3]) sent.push(await after.uploadPart('key', id, number, parts[number - 1]!));
      await after.complete('key', id, sent);
      expect((await after.get('key')).content.equals(Buffer.concat(parts))).toBe(true);
      await after.kill();
      const again = await startChild();
      expect((await again.get('key')).content.equals(Buffer.concat(parts))).toBe(true);
    });

    it('removes at its next start whatever a crash can leave', async () => {
      const { server, s3 } = await start();
      await s3.createBucket();
      await s3.put('key', 'content');
      await server.close();
      const [blob] = await readdir(inside('blobs'));
      await writeFile(inside('temporary', randomUUID()), 'half a body');
      await mkdir(inside('temporary', 'upload'));
      await writeFile(inside('temporary', 'upload', 'upload.json'), '{}');
      await writeFile(inside('blobs', randomUUID()), 'a body without a record');
      await mkdir(inside('uploads', randomUUID()));
      const next = await start();
      expect((await next.s3.get('key')).content.toString()).toBe('content');
      expect(await readdir(inside('temporary'))).toEqual([]);
      expect(await readdir(inside('uploads'))).toEqual([]);
      expect(await readdir(inside('blobs'))).toEqual([blob]);
    });
  });

  describe('that is stopped', () => {
    it('has ended all writes when it says so', async () => {
      const { server, s3 } = await start();
      await s3.createBucket();
      const outcomes = new Map<string, Promise<string>>();
      for (let index = 0; index < 40; index++)
        outcomes.set(`key/${index}`, outcomeOf(s3.put(`key/${index}`, randomBytes(300_000))));
      await sleep(30);
      await server.close();
      expect(await readdir(inside('temporary'))).toEqual([]);
      const blobs = await readdir(inside('blobs'));
      const next = await start();
      const found = await keysOf(next.s3);
      for (const [key, outcome] of outcomes) if ((await outcome) === 'ok') expect(found).toContain(key);
      expect(blobs).toHaveLength(found.length);
    });

    it('keeps uploads that may go on, and removes those that nobody will finish', async () => {
      const { server, s3 } = await start();
      await s3.createBucket();
      const id = await s3.createUpload('key');
      await s3.uploadPart('key', id, 1, 'part');
      await server.close();
      const next = await start();
      expect(await outcomeOf(next.s3.uploadPart('key', id, 2, 'part'))).toBe('ok');
      await next.server.close();
      const last = await start({ staleUploadSeconds: 0 });
      expect(await outcomeOf(last.s3.uploadPart('key', id, 3, 'part'))).toBe('NoSuchUpload 404');
      await untilEmpty(inside('blobs'));
    });

    it('lets the next one have its directory, also when its port was taken', async () => {
      const { server } = await start();
      await server.close();
      const other = createServer().listen(0, '127.0.0.1');
      await new Promise((resolve) => other.once('listening', resolve));
      const { port } = other.address() as AddressInfo;
      await expect(start({ port })).rejects.toThrow(/port \d+ .* is in use: set EMBEDDED_S3_PORT/);
      await new Promise((resolve) => other.close(resolve));
      await start({ port });
    });
  });

  describe('on a directory that another one uses', () => {
    const REFUSAL = /in use by the server( with pid \d+)?: stop it, or choose another STATE_DIR/;

    it('does not start', async () => {
      await start();
      await expect(start()).rejects.toThrow(REFUSAL);
      await expect(startChild()).rejects.toThrow(REFUSAL);
    });

    it('names the process that uses it', async () => {
      const { pid } = await startChild();
      await expect(start()).rejects.toThrow(`pid ${pid}:`);
    });

    it('starts at once when the other was killed', async () => {
      const child = await startChild();
      await child.kill();
      await start();
    });

    it('takes it over alone, however many try', async () => {
      await (await startChild()).kill();
      const tries = await Promise.allSettled(Array.from({ length: 4 }, () => startChild()));
      const refusals = tries.filter((result) => result.status === 'rejected').map(({ reason }) => String(reason));
      expect(refusals).toHaveLength(3);
      for (const refusal of refusals) expect(refusal).toMatch(REFUSAL);
    });
  });

  describe('on a full disk', () => {
    const SIZE = 40 * MIB;
    /** Runs a child with a small disk of its own at the directory. */
    const smallDisk = () => [
      'unshare',
      ...(process.getuid!() === 0 ? [] : ['--map-root-user']),
      '--mount',
      'sh',
      '-c',
      `mount -t tmpfs -o size=${SIZE} tmpfs "$0" && exec "$@"`,
      directory,
    ];
    const filesOf = ({ pid }: S3Child, name: string) => readdir(path.join(`/proc/${pid}/root`, directory, name));
    /** Fills the disk to the last bytes with objects below `fill/`. */
    const fill = async (s3: S3Session) => {
      for (let size = 16 * MIB; size >= 1024; size /= 2)
        while ((await outcomeOf(s3.put(`fill/${randomUUID()}`, Buffer.alloc(size)))) === 'ok');
    };
    const kept = randomBytes(2 * MIB);
    const expectKept = async (s3: S3Session, key = 'kept') =>
      expect((await s3.get(key)).content.equals(kept)).toBe(true);
    const FULL = 'InsufficientStorage 507';
    let s3: S3Child;

    beforeEach(async () => {
      s3 = await startChild(smallDisk());
      await s3.createBucket();
      await s3.put('kept', kept);
    });

    it('refuses an object that does not fit, before it has come', async () => {
      expect(await outcomeOf(s3.put('large', Buffer.alloc(SIZE)))).toBe(FULL);
      expect(await outcomeOf(s3.put('kept', Buffer.alloc(SIZE)))).toBe(FULL);
      await expectKept(s3);
      expect(await outcomeOf(s3.put('small', 'x'))).toBe('ok');
    });

    it('refuses objects that fit alone and not together', async () => {
      const keys = ['1', '2', '3', '4', '5'];
      const outcomes = await Promise.all(keys.map((key) => outcomeOf(s3.put(key, Buffer.alloc(12 * MIB, key)))));
      // Perhaps all of them, where each got as far as the others.
      expect(outcomes).toContain(FULL);
      expect(outcomes.filter((outcome) => outcome !== FULL && outcome !== 'ok')).toEqual([]);
      const taken = keys.filter((_, index) => outcomes[index] === 'ok');
      expect(await keysOf(s3)).toEqual([...taken, 'kept']);
      for (const key of taken) expect((await s3.get(key)).content.equals(Buffer.alloc(12 * MIB, key))).toBe(true);
      await expectKept(s3);
      expect(await filesOf(s3, 'temporary')).toEqual([]);
      expect(await filesOf(s3, 'blobs')).toHaveLength(taken.length + 1);
      for (const key of taken) await remove(s3, key);
      expect(await outcomeOf(s3.put('1', Buffer.alloc(12 * MIB)))).toBe('ok');
    });

    it('refuses a body of unknown length when the disk is full', async () => {
      const headers = { 'transfer-encoding': 'chunked' };
      const endless = {
        method: 'PUT',
        path: `${BUCKET}/endless`,
        body: Buffer.alloc(SIZE),
        payload: 'UNSIGNED-PAYLOAD',
      };
      const tamper = (sent: { headers: Record<string, string> }) => {
        delete sent.headers['content-length'];
        Object.assign(sent.headers, headers);
      };
      expect(await s3.send({ ...endless, tamper })).toMatchObject({ status: 507, code: 'InsufficientStorage' });
      expect(await filesOf(s3, 'temporary')).toEqual([]);
      await expectKept(s3);
    });

    it('loses nothing, goes on, and has the space of what is deleted', async () => {
      await fill(s3);
      const body = Buffer.alloc(100_000);
      expect(await outcomeOf(s3.put('kept', body))).toBe(FULL);
      const id = await outcomeOf(s3.createUpload('upload'));
      expect(['ok', FULL]).toContain(id);
      await expectKept(s3);
      const filled = (await keysOf(s3)).filter((key) => key.startsWith('fill/'));
      for (const key of filled) await remove(s3, key);
      for (let tries = 0; tries < 100 && (await filesOf(s3, 'blobs')).length > 1; tries++) await sleep(20);
      expect(await outcomeOf(s3.put('large', Buffer.alloc(30 * MIB)))).toBe('ok');
      await expectKept(s3);
      expect(await filesOf(s3, 'temporary')).toEqual([]);
      expect(s3.output).toBe('');
    });

    it('copies without space for the content, and has that of an upload that is aborted', async () => {
      const id = await s3.createUpload('upload');
      await s3.uploadPart('upload', id, 1, Buffer.alloc(16 * MIB));
      await s3.uploadPart('upload', id, 2, Buffer.alloc(16 * MIB));
      expect(await outcomeOf(s3.uploadPart('upload', id, 3, Buffer.alloc(16 * MIB)))).toBe(FULL);
      for (let copy = 0; copy < 20; copy++) {
        const CopySource = `${BUCKET}/kept`;
        await s3.client.send(new CopyObjectCommand({ Bucket: BUCKET, Key: `copy/${copy}`, CopySource }));
      }
      await expectKept(s3, 'copy/19');
      await s3.client.send(new AbortMultipartUploadCommand({ Bucket: BUCKET, Key: 'upload', UploadId: id }));
      for (let tries = 0; tries < 100 && (await filesOf(s3, 'blobs')).includes(id); tries++) await sleep(20);
      expect(await outcomeOf(s3.put('large', Buffer.alloc(30 * MIB)))).toBe('ok');
    });
  });

  it('leaves the space free that is reserved', async () => {
    const { server, s3 } = await start();
    await s3.createBucket();
    await s3.put('key', 'content');
    await server.close();
    const { bavail, bsize } = await statfs(directory);
    const full = await start({ reserveBytes: bavail * bsize + 64 * 1024 * MIB });
    expect(await outcomeOf(full.s3.put('other', 'x'))).toBe('InsufficientStorage 507');
    expect((await full.s3.get('key')).content.toString()).toBe('content');
    await remove(full.s3, 'key');
    expect(await keysOf(full.s3)).toEqual([]);
  });

  it('tells which file is the whole of an object', async () => {
    const { server, s3 } = await start();
    await s3.createBucket();
    const parts = [randomBytes(5 * MIB), randomBytes(5 * MIB), randomBytes(100)];
    await s3.put('put', parts[0]!);
    await s3.uploadInParts('parts', parts);
    await s3.uploadInParts('other-order', parts, [2, 1, 0]);
    await s3.put('empty', Buffer.alloc(0), { ContentLength: 0 });
    const contentOf = async (key: string) => {
      const file = await server.localFile(BUCKET, key);
      return file && md5Of(await readFile(file));
    };
    expect(await contentOf('put')).toBe(md5Of(parts[0]!));
    expect(await contentOf('parts')).toBe(md5Of(Buffer.concat(parts)));
    expect(await contentOf('other-order')).toBeNull();
    expect(await contentOf('empty')).toBeNull();
    expect(await contentOf('missing')).toBeNull();
    expect(await server.localFile('missing-bucket', 'key')).toBeNull();
  });

  it('takes and gives 300 MB in little memory', async () => {
    const s3 = await startChild();
    await s3.createBucket();
    await s3.put('warm', 'x');
    /** Bytes. */
    const memory = async (field: 'VmRSS' | 'VmHWM') => {
      const status = await readFile(`/proc/${s3.pid}/status`, 'utf8');
      return Number(new RegExp(`^${field}:\\s+(\\d+) kB$`, 'm').exec(status)![1]) * 1024;
    };
    const before = await memory('VmRSS');
    const block = randomBytes(MIB);
    const sent = createHash('md5');
    const blocks = function* () {
      for (let index = 0; index < 300; index++) {
        sent.update(block);
        yield block;
      }
    };
    const { ETag } = await s3.put('large', Readable.from(blocks()), { ContentLength: 300 * MIB });
    const { Body } = await s3.client.send(new GetObjectCommand({ Bucket: BUCKET, Key: 'large' }));
    const received = createHash('md5');
    for await (const chunk of Body as Readable) received.update(chunk as Buffer);
    const digest = received.digest('hex');
    expect(ETag).toBe(`"${digest}"`);
    expect(digest).toBe(sent.digest('hex'));
    expect((await memory('VmHWM')) - before).toBeLessThan(100 * MIB);
  });
});
