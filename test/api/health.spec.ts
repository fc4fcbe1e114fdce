import { startTestApp, type TestApp } from '../support/app.js';
import { createTestDatabase, type TestDatabase } from '../support/database.js';
import { MemoryArtifactStore } from '../support/memory-artifact-store.js';
import { MemoryJobLauncher } from '../support/memory-job-launcher.js';
import { until } from '../support/system.js';

let database: TestDatabase;
let store: MemoryArtifactStore;
let launcher: MemoryJobLauncher;
let app: TestApp;

beforeEach(async () => {
  database = await createTestDatabase();
  store = new MemoryArtifactStore();
  launcher = new MemoryJobLauncher();
  app = await startTestApp({ databaseUrl: database.url, store, launcher });
});
afterEach(async () => {
  await app.close();
  await database.drop();
});

/** The sentence in which the server says why it is not ready. */
async function whyNotReady(probe = '/healthz/ready'): Promise<string> {
  const { status, headers, body } = await app.send('GET', probe);
  expect([status, headers['content-type']]).toEqual([503, 'application/problem+json']);
  const { detail, ...problem } = body as { detail: string };
  expect(problem).toEqual({ status: 503, title: 'Service Unavailable', code: 'not-ready' });
  return detail;
}

it.each(['', '/apis/ims'])('%s/healthz says that all is well', async (prefix) => {
  expect(await app.send('GET', `${prefix}/healthz/live`)).toMatchObject({ status: 200, body: {} });
  expect(await app.send('GET', `${prefix}/healthz/serving`)).toMatchObject({ status: 200, body: {} });
  expect(await app.send('GET', `${prefix}/healthz/ready`)).toMatchObject({ status: 200, body: {} });
  expect(await app.send('GET', `${prefix}/version`)).toMatchObject({
    status: 200,
    body: { version: expect.stringMatching(/^\d+\.\d+\.\d+/) },
  });
});

it('makes the buckets that the store lacks, though nobody asks whether it is ready', async () => {
  const isThere = async (bucket: string) => {
    try {
      for await (const _ of store.list(bucket, '')) break;
      return true;
    } catch {
      return false;
    }
  };
  await until('all buckets are there', async () => (await isThere('ims')) && (await isThere('boot-images')));
  expect((await app.send('GET', '/healthz/ready')).status).toBe(200);
});

it('lives, and serves nobody, without its database', async () => {
  await database.drop();
  expect(await whyNotReady('/healthz/serving')).toBe('The service cannot work now: database: it cannot be reached');
  expect(await whyNotReady()).toBe('The service cannot work now: database: it cannot be reached');
  expect((await app.send('GET', '/healthz/live')).status).toBe(200);
  database = await createTestDatabase();
});

it('lives, and is not ready, without its store', async () => {
  store.ready = () => Promise.reject(new Error('the artifact store cannot be reached'));
  expect(await whyNotReady()).toBe('The service cannot work now: artifact store: the artifact store cannot be reached');
  expect((await app.send('GET', '/healthz/live')).status).toBe(200);
});

it('lives, and is not ready, where jobs cannot run', async () => {
  launcher.ready = () => Promise.reject(new Error('slirp4netns is missing: apt-get install slirp4netns'));
  expect(await whyNotReady()).toContain('job launcher: slirp4netns is missing: apt-get install slirp4netns');
  expect((await app.send('GET', '/healthz/live')).status).toBe(200);
});

it('names all that does not work at once', async () => {
  store.ready = () => Promise.reject(new Error('it is away'));
  launcher.ready = () => Promise.reject(new Error('so is this'));
  expect(await whyNotReady()).toBe('The service cannot work now: artifact store: it is away; job launcher: so is this');
});

it('serves although store and launcher are away: records can be read, and jobs report', async () => {
  store.ready = () => Promise.reject(new Error('it is away'));
  launcher.ready = () => new Promise(() => {});
  expect(await app.send('GET', '/healthz/serving')).toMatchObject({ status: 200, body: {} });
  expect(await app.send('GET', '/v3/jobs')).toMatchObject({ status: 200, body: [] });
});

it('answers although a part does not, and is ready again when that is back', async () => {
  const ready = launcher.ready.bind(launcher);
  launcher.ready = () => new Promise(() => {});
  const begun = Date.now();
  expect(await whyNotReady()).toContain('job launcher: it did not answer within 5 s');
  expect(Date.now() - begun).toBeLessThan(8000);
  launcher.ready = ready;
  expect((await app.send('GET', '/healthz/ready')).status).toBe(200);
});
