import { createHash, randomBytes } from 'node:crypto';
import { mkdtemp, open, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { buffer } from 'node:stream/consumers';
import { ArtifactStoreFailure, type ArtifactUpload } from '../../src/artifacts/artifact-store.js';
import type { JobProgress } from '../../src/protocol/job-report.js';
import type { CopiedRange } from '../../src/worker/part-plan.js';
import { uploadWhileWritten } from '../../src/worker/upload-while-written.js';
import { MemoryArtifactStore } from '../support/memory-artifact-store.js';

const MIB = 1 << 20;
const LOCATION = { bucket: 'boot-images', key: 'id/rootfs' };
const md5Of = (content: Buffer) => createHash('md5').update(content).digest('hex');
const sleep = (milliseconds: number) => new Promise((resolve) => setTimeout(resolve, milliseconds));

let directory: string;
let file: string;
let store: MemoryArtifactStore;

beforeEach(async () => {
  directory = await mkdtemp(path.join(tmpdir(), 'ims-upload-'));
  file = path.join(directory, 'image');
  store = new MemoryArtifactStore(['boot-images']);
});
afterEach(() => rm(directory, { recursive: true }));

const SOURCE = { bucket: 'boot-images', key: 'source/rootfs' };

interface Copies {
  copied: CopiedRange[];
  etag: string;
}

function upload(
  written: Promise<void>,
  expectedSize = 0,
  onProgress: (progress: JobProgress) => unknown = () => {},
  { copied, etag }: Copies = { copied: [], etag: '' },
) {
  const told = async (progress: JobProgress) => void onProgress(progress);
  return uploadWhileWritten({
    store,
    location: LOCATION,
    metadata: { name: 'x' },
    file,
    written,
    copied: Promise.resolve(copied),
    source: { ...SOURCE, etag },
    expectedSize,
    onProgress: told,
  });
}

/** Writes as mksquashfs does: strictly forward, the first bytes last. */
async function writeSlowly(content: Buffer, pause: number): Promise<void> {
  const handle = await open(file, 'w');
  try {
    await handle.write(Buffer.alloc(96), 0, 96, 0);
    for (let done = 96; done < content.length; done += 4 * MIB) {
      await handle.write(content, done, Math.min(4 * MIB, content.length - done), done);
      await sleep(pause);
    }
    await handle.write(content, 0, 96, 0);
  } finally {
    await handle.close();
  }
}

async function stored(): Promise<Buffer> {
  return buffer(await store.read(LOCATION));
}

async function expectNothingStored(): Promise<void> {
  await expect(store.head(LOCATION)).rejects.toThrow('no artifact');
  expect(store.openUploads()).toEqual([]);
}

it.each([0, 1, 5 * MIB, 8 * MIB, 8 * MIB + 1, 40 * MIB + 12_345])(
  'stores %d bytes that are being written',
  async (size) => {
    const content = randomBytes(size);
    const { md5, metadata } = await upload(size < 96 ? writeFile(file, content) : writeSlowly(content, 30));
    expect((await stored()).equals(content)).toBe(true);
    expect(md5).toBe(md5Of(content));
    expect(metadata).toMatchObject({ md5sum: md5, name: 'x' });
  },
);

it('sends parts before the file is whole, and the first one last', async () => {
  const numbers: number[] = [];
  const begin = store.upload.bind(store);
  store.upload = async (...args) => {
    const begun = await begin(...args);
    const part = begun.part.bind(begun);
    return Object.assign(begun, {
      part: (number: number, content: Buffer) => (numbers.push(number), part(number, content)),
    }) as ArtifactUpload;
  };
  let sentBefore = 0;
  const written = writeSlowly(randomBytes(48 * MIB), 60).then(() => void (sentBefore = numbers.length));
  await upload(written);
  expect(sentBefore).toBeGreaterThan(1);
  expect(numbers.toSorted((one, other) => one - other)).toEqual([1, 2, 3, 4, 5, 6]);
  expect(numbers.indexOf(1)).toBeGreaterThanOrEqual(sentBefore);
});

it('sends again what the writer changed behind itself', async () => {
  const content = randomBytes(32 * MIB);
  const written = (async () => {
    await writeSlowly(randomBytes(32 * MIB), 60);
    await writeFile(file, content);
  })();
  await upload(written);
  expect((await stored()).equals(content)).toBe(true);
});

it('stores nothing where the writer fails, and says why', async () => {
  const written = writeSlowly(randomBytes(24 * MIB), 30).then(() => {
    throw new Error('the disk is full');
  });
  await expect(upload(written)).rejects.toThrow('the disk is full');
  await expectNothingStored();
});

it('stores nothing where the store fails, and says why', async () => {
  const begin = store.upload.bind(store);
  store.upload = async (...args) =>
    Object.assign(await begin(...args), {
      part: () => Promise.reject(new ArtifactStoreFailure('the artifact store is full')),
    }) as ArtifactUpload;
  await expect(upload(writeSlowly(randomBytes(24 * MIB), 30))).rejects.toThrow('the artifact store is full');
  await expectNothingStored();
});

it('takes larger parts where the image may become large', async () => {
  const content = randomBytes(20 * MIB);
  const { etag } = await upload(writeSlowly(content, 0), 30 * 1024 * MIB);
  // 5 times 30 GiB in 10,000 parts: 16 MiB each.
  expect(etag).toMatch(/-2$/);
});

describe('an image that has much of another', () => {
  let content: Buffer;
  let copies: Copies;

  beforeEach(async () => {
    const old = randomBytes(60 * MIB);
    const { etag } = await store.put(SOURCE, { body: old });
    const copied = [
      { start: 96, source: 1096, length: 30 * MIB },
      { start: 96 + 30 * MIB, source: 31 * MIB, length: MIB },
      { start: 96 + 31 * MIB, source: 35 * MIB, length: 25 * MIB },
    ];
    const stretches = copied.map(({ source, length }) => old.subarray(source, source + length));
    content = Buffer.concat([randomBytes(96), ...stretches, randomBytes(3 * MIB)]);
    copies = { copied, etag };
  });

  const uploadCopies = () => upload(writeSlowly(content, 10), 0, () => {}, copies);

  /** Changes what copying a part does. */
  function meddle(copyPart: (original: ArtifactUpload['copyPart']) => ArtifactUpload['copyPart']): void {
    const begin = store.upload.bind(store);
    store.upload = async (...args) => {
      const begun = await begin(...args);
      return Object.assign(begun, { copyPart: copyPart(begun.copyPart.bind(begun)) });
    };
  }

  async function expectStored(result: { md5: string }): Promise<void> {
    expect((await stored()).equals(content)).toBe(true);
    expect(result.md5).toBe(md5Of(content));
  }

  it('is sent for what the other lacks, and copied for the rest', async () => {
    const result = await uploadCopies();
    await expectStored(result);
    // The first part, the one around the short stretch, and the end.
    expect(result.bytesSent).toBeLessThan(20 * MIB);
  });

  it('is copied in stretches of 5 MiB, the least that S3 takes', async () => {
    const old = randomBytes(24 * MIB);
    const { etag } = await store.put(SOURCE, { body: old });
    // Three stretches, and something new before each.
    const copied = [0, 1, 2].map((number) => ({
      start: 96 + number * 7 * MIB,
      source: number * 8 * MIB,
      length: 6 * MIB,
    }));
    content = Buffer.concat([
      randomBytes(96),
      ...copied.flatMap(({ source, length }) => [old.subarray(source, source + length), randomBytes(MIB)]),
    ]);
    copies = { copied, etag };
    const result = await uploadCopies();
    await expectStored(result);
    expect(result.bytesSent).toBeLessThan(content.length * 0.8);
  });

  it.each<[string, () => unknown]>([
    ['the other was removed', () => store.remove(SOURCE)],
    ['the other was replaced', () => store.put(SOURCE, { body: randomBytes(60 * MIB) })],
    ['the store cannot copy', () => meddle(() => () => Promise.reject(new ArtifactStoreFailure('not implemented')))],
    [
      'the store copies something else',
      () =>
        meddle(
          (copy) => (number, source, range) => copy(number, source, { start: range.start + 1, end: range.end + 1 }),
        ),
    ],
  ])('is sent whole where %s', async (_what, change) => {
    await change();
    const result = await uploadCopies();
    await expectStored(result);
    expect(result.bytesSent).toBe(content.length);
  });
});
