import { createHash, randomBytes } from 'node:crypto';
import { mkdtemp, open, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { Readable } from 'node:stream';
import { ArtifactStoreFailure } from '../../src/artifacts/artifact-store.js';
import { fetchRanges } from '../../src/worker/fetch-ranges.js';
import { MemoryArtifactStore } from '../support/memory-artifact-store.js';

const MIB = 1 << 20;
const LOCATION = { bucket: 'boot-images', key: 'id/rootfs' };

let directory: string;
let store: MemoryArtifactStore;

beforeEach(async () => {
  directory = await mkdtemp(path.join(tmpdir(), 'ims-fetch-'));
  store = new MemoryArtifactStore(['boot-images']);
});
afterEach(() => rm(directory, { recursive: true }));

async function fetched(content: Buffer): Promise<string> {
  await store.put(LOCATION, { body: content });
  const file = await open(path.join(directory, 'file'), 'w');
  try {
    return await fetchRanges(store, LOCATION, content.length, file, async () => {});
  } finally {
    await file.close();
  }
}

it.each([0, 1, 8 * MIB, 8 * MIB + 1, 50 * MIB + 7])('fetches %d bytes, with their md5', async (size) => {
  const content = randomBytes(size);
  expect(await fetched(content)).toBe(createHash('md5').update(content).digest('hex'));
  expect((await readFile(path.join(directory, 'file'))).equals(content)).toBe(true);
});

it('asks for a few ranges at a time', async () => {
  const read = store.read.bind(store);
  let reading = 0;
  let most = 0;
  store.read = async (...args) => {
    most = Math.max(most, ++reading);
    await new Promise((resolve) => setTimeout(resolve, 20));
    reading--;
    return read(...args);
  };
  await fetched(randomBytes(80 * MIB));
  expect(most).toBe(4);
});

/** A store whose connections break half-way, as often as this. */
function breakConnections(times: number): void {
  const read = store.read.bind(store);
  let left = times;
  store.read = async (...args) => {
    const content = await read(...args);
    if (left-- <= 0) return content;
    return Readable.from(
      (async function* () {
        yield Buffer.alloc(100);
        throw new ArtifactStoreFailure('the connection to the artifact store broke');
      })(),
    );
  };
}

it('asks again for what broke on the way', async () => {
  breakConnections(3);
  const content = randomBytes(20 * MIB);
  expect(await fetched(content)).toBe(createHash('md5').update(content).digest('hex'));
});

it('gives up where it breaks every time', async () => {
  breakConnections(1000);
  await expect(fetched(randomBytes(20 * MIB))).rejects.toThrow('the connection to the artifact store broke');
});
