import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { Readable } from 'node:stream';
import { buffer } from 'node:stream/consumers';
import { setTimeout as sleep } from 'node:timers/promises';
import { jest } from '@jest/globals';
import type { ObjectStore, Upload } from '../../src/embedded/s3/object-store.js';
import { lockDirectory } from '../../src/embedded/s3/directory-lock.js';
import { FailingDisk } from '../support/failing-disk.js';

/** What is at names of objects, `<bucket>/<key>`, and of parts, `<upload key>#<number>`: the md5 of content. */
type State = Map<string, string>;

/** Something that a client asks for, and what is different when it is acknowledged; null for what is gone then. */
interface Step {
  run: (store: ObjectStore) => Promise<unknown>;
  changes: Record<string, string | null>;
}

const ATTRIBUTES = { metadata: { a: '1' }, headers: { 'content-type': 'text/plain' } };
const md5Of = (content: Buffer | string) => createHash('md5').update(content).digest('hex');

/** Every kind of write there is, one after the other. */
function storySteps(): Step[] {
  const put = (key: string, content: string): Step => ({
    run: (store) => store.put('bucket', key, ATTRIBUTES, Readable.from([Buffer.from(content)]), {}, {}),
    changes: { [`bucket/${key}`]: md5Of(content) },
  });
  const copy = (source: string, key: string, content: string): Step => ({
    run: (store) => store.copy(store.get('bucket', source), 'bucket', key, ATTRIBUTES, {}),
    changes: { [`bucket/${key}`]: md5Of(content) },
  });
  const remove = (key: string): Step => ({
    run: (store) => store.delete('bucket', key),
    changes: { [`bucket/${key}`]: null },
  });
  const uploads = new Map<string, Upload>();
  const create = (key: string): Step => ({
    run: async (store) => uploads.set(key, await store.createUpload('bucket', key, ATTRIBUTES)),
    changes: {},
  });
  const putPart = (key: string, number: number, content: string): Step => ({
    run: (store) => {
      const bytes = Buffer.from(content);
      return store.putPart(uploads.get(key)!, number, Readable.from([bytes]), { length: bytes.length });
    },
    changes: { [`${key}#${number}`]: md5Of(content) },
  });
  const complete = (key: string, ...parts: string[]): Step => ({
    run: (store) => {
      const named = parts.map((content, index) => ({ number: index + 1, etag: md5Of(content) }));
      return store.completeUpload(uploads.get(key)!, named, {});
    },
    changes: {
      [`bucket/${key}`]: md5Of(parts.join('')),
      ...Object.fromEntries(parts.map((_, index) => [`${key}#${index + 1}`, null])),
    },
  });
  const abort = (key: string): Step => ({
    run: (store) => store.abortUpload(uploads.get(key)!),
    changes: { [`${key}#1`]: null },
  });
  return [
    { run: (store) => store.createBucket('bucket'), changes: {} },
    put('a', 'first'),
    put('a', 'second'),
    put('empty', ''),
    copy('a', 'b', 'second'),
    create('u'),
    putPart('u', 1, 'written in place'),
    complete('u', 'written in place'),
    copy('u', 'c', 'written in place'),
    create('a'),
    putPart('a', 1, 'replaced'),
    putPart('a', 1, 'a blob of its own'),
    complete('a', 'a blob of its own'),
    create('v'),
    putPart('v', 1, 'never completed'),
    abort('v'),
    remove('a'),
    put('u', 'small again'),
    { run: (store) => store.createBucket('other-bucket'), changes: {} },
    { run: (store) => store.deleteBucket('other-bucket'), changes: {} },
    remove('c'),
    put('a', 'third'),
  ];
}

describe('store of the embedded S3 server', () => {
  let root: string;
  let directory: string;
  let disk: FailingDisk;
  let Store: typeof ObjectStore;

  beforeAll(async () => {
    // In memory where there is such a place, as the disk fails some hundred times.
    root = await mkdtemp(path.join(existsSync('/dev/shm') ? '/dev/shm' : tmpdir(), 'ims-s3-crash-'));
    await mkdir(path.join(root, 'backup'));
    disk = new FailingDisk(path.join(root, 'backup'));
    jest.unstable_mockModule('node:fs/promises', () => disk.functions);
    ({ ObjectStore: Store } = await import('../../src/embedded/s3/object-store.js'));
  });
  beforeEach(async () => {
    disk.restart();
    directory = path.join(root, 'store');
    await mkdir(directory);
  });
  afterEach(() => rm(directory, { recursive: true, force: true }));
  afterAll(() => rm(root, { recursive: true, force: true }));

  const open = async () => {
    const store = new Store(directory, 0);
    await store.open();
    return store;
  };

  /** What a store has, read to the last byte. */
  async function stateOf(store: ObjectStore): Promise<State> {
    const state: State = new Map();
    for (const bucket of store.bucketNames()) {
      for (const [key, { segments, size, metadata }] of store.objectsOf(bucket)) {
        const content = await buffer(store.read(segments));
        expect(content).toHaveLength(size);
        expect(metadata).toEqual(ATTRIBUTES.metadata);
        state.set(`${bucket}/${key}`, md5Of(content));
      }
      for (const upload of store.uploadsOf(bucket))
        for (const { number, segments } of upload.parts.values())
          state.set(`${upload.key}#${number}`, md5Of(await buffer(store.read(segments))));
    }
    return state;
  }

  /** Expects that everything can be removed, and that nothing is left then. */
  async function expectNoLeak(store: ObjectStore): Promise<void> {
    for (const bucket of store.bucketNames()) {
      for (const key of store.keysOf(bucket)) await store.delete(bucket, key);
      await store.deleteBucket(bucket);
    }
    await store.settle();
    for (const name of ['objects', 'blobs', 'uploads', 'temporary'])
      expect(await readdir(path.join(directory, name))).toEqual([]);
  }

  /** Runs the steps until the disk stops after so many operations, or to their end. @returns what every name may hold then: one thing, or one of two */
  async function runUntilStop(steps: Step[], operations: number): Promise<Map<string, (string | null)[]>> {
    const store = await open();
    const stopped = disk.stopAfter(operations);
    const held = new Map<string, (string | null)[]>();
    for (const { run, changes } of steps) {
      const isDone = await Promise.race([run(store).then(() => true), stopped.then(() => false)]);
      for (const [name, md5] of Object.entries(changes))
        held.set(name, isDone ? [md5] : [...(held.get(name) ?? [null]), md5]);
      if (!isDone) return held;
    }
    await store.settle();
    return held;
  }

  async function countOperations(): Promise<number> {
    const store = await open();
    const before = disk.operations;
    for (const { run } of storySteps()) await run(store);
    await store.settle();
    const operations = disk.operations - before;
    await expectNoLeak(store);
    await rm(directory, { recursive: true });
    await mkdir(directory);
    disk.restart();
    return operations;
  }

  it.each([
    ['the process is killed', async () => disk.restart()],
    ['the power fails', () => disk.restartWithoutPower(directory)],
  ])(
    'has what it acknowledged and nothing by halves, at whichever operation %s',
    async (_, restart) => {
      const operations = await countOperations();
      expect(operations).toBeGreaterThan(150);
      for (let stop = 0; stop < operations; stop++) {
        const allowed = await runUntilStop(storySteps(), stop);
        await restart();
        const store = await open();
        const state = await stateOf(store);
        for (const name of new Set([...state.keys(), ...allowed.keys()]))
          expect({ stop, name, isAllowed: allowed.get(name)?.includes(state.get(name) ?? null) }).toEqual({
            stop,
            name,
            isAllowed: true,
          });
        expect(await readdir(path.join(directory, 'temporary'))).toEqual([]);
        await expectNoLeak(store);
        await rm(directory, { recursive: true });
        await mkdir(directory);
        disk.restart();
      }
    },
    60_000,
  );

  it('is left by a stopping server only when its last write has ended', async () => {
    const { startS3Server } = await import('../../src/embedded/s3/s3-server.js');
    const { CREDENTIALS, outcomeOf, S3Session } = await import('../support/s3-under-test.js');
    const server = await startS3Server({ directory, credentials: CREDENTIALS });
    const s3 = new S3Session(server.endpoint);
    await s3.createBucket();
    const release = disk.hold();
    const put = outcomeOf(s3.put('key', 'content'));
    await sleep(100);
    let isClosed = false;
    const closing = server.close().then(() => (isClosed = true));
    await sleep(200);
    expect(isClosed).toBe(false);
    expect(() => lockDirectory(directory, path.join(directory, 'lock'))).toThrow(/in use/);
    release();
    await closing;
    expect(await put).not.toBe('ok');
    s3.client.destroy();
    expect(await readdir(path.join(directory, 'temporary'))).toEqual([]);
  });
});
