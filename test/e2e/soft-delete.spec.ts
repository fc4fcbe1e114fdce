import { randomBytes } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import { findLocation } from '../../src/protocol/artifact-link.js';
import type { ImageManifest } from '../../src/protocol/image-manifest.js';
import { buildDemoImage } from '../../src/quickstart/demo-image.js';
import { BUCKET, sleep, System, until } from '../support/system.js';

/** How often the server is killed; `IMS_KILLS=50` for a long run. */
const KILLS = Number(process.env['IMS_KILLS'] ?? 12);

let system: System;
let imageId: string;
let before: Map<string, string>;

beforeAll(async () => {
  system = await System.start();
  const image = await buildDemoImage(system.file('source'));
  await writeFile(image.rootfs, randomBytes(100 << 20));
  imageId = await system.addImage({ image });
  before = await stored();
}, 120_000);
afterAll(() => system.stop());

/** Keys of everything in the bucket, with size and etag. */
async function stored(): Promise<Map<string, string>> {
  const found = new Map<string, string>();
  for await (const { key, size } of system.store.list(BUCKET, '')) {
    // What moves meanwhile is listed but gone.
    const head = await system.store.head({ bucket: BUCKET, key }).catch(() => null);
    if (head) found.set(key, `${size} ${head.etag} ${head.metadata['md5sum']}`);
  }
  return found;
}

const keysOf = (objects: Map<string, string>) => [...objects.keys()].toSorted();
const away = () => keysOf(before).map((key) => `deleted/${key}`);
const list = () => `deleted/${imageId}/deleted_manifest.json`;

type Deleted = { id: string; link: { path: string } };

/** What the records and the store must agree on when nothing is on its way any more. */
async function expectAgreement(): Promise<void> {
  const [live, deleted] = await Promise.all(
    ['/images', '/deleted/images'].map((where) => system.api.request<Deleted[]>('GET', where)),
  );
  const isLive = live!.some(({ id }) => id === imageId);
  expect([isLive, deleted!.some(({ id }) => id === imageId)]).toContain(false);
  await until(
    'the artifacts are where the record wants them',
    async () => {
      const wanted = isLive ? keysOf(before) : [...away(), list()].toSorted();
      return String(keysOf(await stored())) === String(wanted);
    },
    40,
  );
  const objects = await stored();
  for (const [key, description] of before) expect(objects.get(isLive ? key : `deleted/${key}`)).toBe(description);
  if (!isLive) await expectListed();
}

/** The list of a deleted image leads to every artifact of it. */
async function expectListed(): Promise<void> {
  let location = '';
  await until('the record leads to the list', async () => {
    location = (await system.api.request<Deleted>('GET', `/deleted/images/${imageId}`)).link.path;
    return location.endsWith('deleted_manifest.json');
  });
  const content = await system.store.readSmall(findLocation(location)!, 1 << 20);
  const { artifacts } = JSON.parse(content.toString()) as ImageManifest;
  expect(artifacts.map(({ link }) => findLocation(link.path)!.key).toSorted()).toEqual(away().toSorted());
}

it(`keeps records and objects in agreement through ${KILLS} kills`, async () => {
  for (let kill = 0; kill < KILLS; kill++) {
    const isLive = (await system.api.request<Deleted[]>('GET', '/images')).some(({ id }) => id === imageId);
    const request = isLive
      ? system.api.request('DELETE', `/images/${imageId}`)
      : system.api.request('PATCH', `/deleted/images/${imageId}`, { operation: 'undelete' });
    request.catch(() => {});
    await sleep(Math.random() * 300);
    await system.killServer();
    await system.startServer();
    await expectAgreement();
  }
}, 400_000);

it('removes everything for good, through a kill', async () => {
  if ((await system.api.request<Deleted[]>('GET', '/images')).length)
    await system.api.request('DELETE', `/images/${imageId}`);
  const purge = system.api.request('DELETE', `/deleted/images/${imageId}`);
  purge.catch(() => {});
  await sleep(Math.random() * 50);
  await system.killServer();
  await system.startServer();
  // The request may not have got through; then nothing was removed, and it is sent again.
  const left = await system.api.request<Deleted[]>('GET', '/deleted/images');
  if (left.length) await system.api.request('DELETE', `/deleted/images/${imageId}`);
  await until('the store is empty', async () => (await stored()).size === 0, 40);
}, 120_000);
