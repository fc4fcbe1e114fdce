import { registerImage } from '../../src/quickstart/register-image.js';
import { Api } from '../../src/quickstart/api.js';
import { buildDemoImage } from '../../src/quickstart/demo-image.js';
import { createEmptyTestDatabase, type TestDatabase } from '../support/database.js';
import { ServerProcess } from '../support/server-process.js';
import { BUCKET, System } from '../support/system.js';

/** Servers of one site: a database and a store of their own, and nothing else in common. */
let database: TestDatabase;
let site: System;
let servers: ServerProcess[];

beforeAll(async () => {
  database = await createEmptyTestDatabase();
  site = await System.start();
  // All at once, on a database without a schema: they migrate it in turns.
  servers = await Promise.all(
    [0, 1, 2].map((index) =>
      ServerProcess.start({
        DATABASE_URL: database.url,
        S3_ENDPOINT: site.storeUrl,
        S3_ACCESS_KEY: 'test-access',
        S3_SECRET_KEY: 'test-secret',
        STATE_DIR: site.file(`server-${index}`),
        PORT: '0',
      }),
    ),
  );
}, 90_000);
afterAll(async () => {
  for (const server of servers) await server.stop();
  await site.stop();
  await database.drop();
});

const apiOf = (index: number) => new Api(servers[index % servers.length]!.url);

async function statusesOf(count: number, send: (index: number) => Promise<Response>): Promise<Map<number, number>> {
  const statuses = new Map<number, number>();
  await Promise.all(
    Array.from({ length: count }, async (_, index) => {
      const { status } = await send(index);
      statuses.set(status, (statuses.get(status) ?? 0) + 1);
    }),
  );
  return statuses;
}

const send = (index: number, method: string, where: string, body?: object) =>
  fetch(`${servers[index % servers.length]!.url}/v3${where}`, {
    method,
    ...(body && { headers: { 'content-type': 'application/json' }, body: JSON.stringify(body) }),
  });

it('lose no record of many that are made at once, and list them alike', async () => {
  expect(await statusesOf(150, (index) => send(index, 'POST', '/images', { name: `image ${index}` }))).toEqual(
    new Map([[201, 150]]),
  );
  const lists = await Promise.all([0, 1, 2].map((index) => apiOf(index).request<object[]>('GET', '/images')));
  expect(lists[0]!.length).toBe(150);
  expect(lists[1]).toEqual(lists[0]);
  expect(lists[2]).toEqual(lists[0]);
});

it('lose no change of one record', async () => {
  const { id } = await apiOf(0).request<{ id: string }>('POST', '/images', { name: 'tagged' });
  const statuses = await statusesOf(60, (index) =>
    send(index, 'PATCH', `/images/${id}`, {
      metadata: { operation: 'set', key: `key-${index}`, value: String(index) },
    }),
  );
  expect(statuses).toEqual(new Map([[200, 60]]));
  const { metadata } = await apiOf(1).request<{ metadata: Record<string, string> }>('GET', `/images/${id}`);
  expect(Object.keys(metadata).length).toBe(60);
});

it('give a link to one record only', async () => {
  const image = await buildDemoImage(site.file('linked'));
  const id = await registerImage(apiOf(0), site.store, BUCKET, 'linked', image);
  const { link } = await apiOf(0).request<{ link: object }>('GET', `/images/${id}`);
  await send(0, 'DELETE', `/images/${id}`);
  await send(0, 'PATCH', `/deleted/images/${id}`, { operation: 'undelete' });
  expect(await statusesOf(30, (index) => send(index, 'POST', '/images', { name: 'thief', link }))).toEqual(
    new Map([[422, 30]]),
  );
  const manifest = await site.store.readSmall({ bucket: BUCKET, key: `${id}/manifest.json` }, 1 << 20);
  await site.store.put({ bucket: BUCKET, key: 'shared/manifest.json' }, { body: manifest });
  const other = { path: `s3://${BUCKET}/shared/manifest.json`, etag: '', type: 's3' };
  const statuses = await statusesOf(30, (index) => send(index, 'POST', '/images', { name: 'first', link: other }));
  expect(statuses).toEqual(
    new Map([
      [201, 1],
      [422, 29],
    ]),
  );
});

it('delete and undelete one record at once, and agree in the end', async () => {
  const image = await buildDemoImage(site.file('contended'));
  const id = await registerImage(apiOf(0), site.store, BUCKET, 'contended', image);
  const statuses = await statusesOf(40, (index) =>
    index % 2
      ? send(index, 'DELETE', `/images/${id}`)
      : send(index, 'PATCH', `/deleted/images/${id}`, { operation: 'undelete' }),
  );
  expect([...statuses.keys()].every((status) => [204, 404, 409, 422].includes(status))).toBe(true);
  if ((await send(0, 'GET', `/images/${id}`)).status === 404)
    expect((await send(1, 'PATCH', `/deleted/images/${id}`, { operation: 'undelete' })).status).toBe(204);
  const home = [`${id}/boot_parameters`, `${id}/initrd`, `${id}/kernel`, `${id}/manifest.json`, `${id}/rootfs`];
  for (const end = Date.now() + 20_000; ;) {
    const keys = (await site.artifacts()).filter((key) => key.includes(id)).toSorted();
    if (String(keys) === String(home)) break;
    if (Date.now() > end) expect(keys).toEqual(home);
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  const { link } = await apiOf(2).request<{ link: { path: string } }>('GET', `/images/${id}`);
  expect(link.path).toBe(`s3://${BUCKET}/${id}/manifest.json`);
}, 60_000);
