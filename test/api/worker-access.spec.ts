import { randomUUID } from 'node:crypto';
import type { Server } from 'node:http';
import { DataSource } from 'typeorm';
import { Job } from '../../src/jobs/job.entity.js';
import { listenForWorkers } from '../../src/jobs/worker-access.js';
import { send, startTestApp, type TestApp } from '../support/app.js';
import { createTestDatabase, type TestDatabase } from '../support/database.js';
import { MemoryJobLauncher } from '../support/memory-job-launcher.js';
import { freePorts } from '../support/ports.js';
import { anImage, aPublicKey } from '../support/records.js';

/** What workers may do: a pod changes its own job, and nothing else. */

let database: TestDatabase;
let app: TestApp;
let server: Server;
let workersOrigin: string;
let job: { id: string; token: string };
let other: { id: string; token: string };
let keyId: string;

beforeAll(async () => {
  database = await createTestDatabase();
  const port = await freePorts();
  workersOrigin = `http://127.0.0.1:${port}`;
  const environment = { JOB_REPORT_PORT: String(port) };
  app = await startTestApp({ databaseUrl: database.url, launcher: new MemoryJobLauncher(), environment });
  const fastify = app.nest.getHttpAdapter().getInstance();
  server = await listenForWorkers((request, response) => fastify.routing(request, response), port, '127.0.0.1');
  keyId = await aPublicKey(app);
  [job, other] = [await aJob(), await aJob()];
});
afterAll(async () => {
  server.closeAllConnections();
  server.close();
  await app.close();
  await database.drop();
});

const jobs = () => app.nest.get(DataSource).getRepository(Job);

async function aJob(): Promise<{ id: string; token: string }> {
  const { id: artifact_id } = await anImage(app);
  const body = { job_type: 'customize', artifact_id, public_key_id: keyId, image_root_archive_name: 'result' };
  const { id } = (await app.send('POST', '/v3/jobs', { body })).body as { id: string };
  return { id, token: (await jobs().findOneByOrFail({ id })).token! };
}

const headersOf = ({ id, token }: { id: string; token: string }) => ({ 'ims-job-token': `${id}.${token}` });
const codeOf = ({ status, body }: { status: number; body: unknown }) => [status, (body as { code?: string }).code];

describe.each([
  ['the port of the API', () => app.origin],
  ['the port of workers', () => workersOrigin],
])('at %s, the token of a job', (_where, origin) => {
  const ask = (method: string, path: string, body?: object, headers: Record<string, string> = headersOf(job)) =>
    send(origin(), method, path, { headers, ...(body && { body }) });

  it('lets a worker read and change its job, also through a gateway', async () => {
    expect((await ask('GET', `/v3/jobs/${job.id}`)).status).toBe(200);
    const progress = { stage: 'pack', done: 1, total: 2 };
    expect((await ask('PATCH', `/apis/ims/v3/jobs/${job.id}`, { progress })).body).toMatchObject({ progress });
  });

  it('lets it register the image of its job, and link that one', async () => {
    const created = await ask('POST', '/v3/images', { name: 'result', job_id: job.id });
    expect(created.status).toBe(201);
    const { id } = created.body as { id: string };
    expect(
      (await ask('PATCH', `/v3/images/${id}`, { metadata: { operation: 'set', key: 'a', value: 'b' } })).status,
    ).toBe(200);
  });

  it.each([
    ['reading another job', 'GET', () => `/v3/jobs/${other.id}`],
    ['changing another job', 'PATCH', () => `/v3/jobs/${other.id}`],
    ['changing its job by a route of another version', 'PATCH', () => `/jobs/${job.id}`],
    ['listing jobs', 'GET', () => '/v3/jobs'],
    ['deleting its job', 'DELETE', () => `/v3/jobs/${job.id}`],
    ['reading keys', 'GET', () => '/v3/public-keys'],
    ['deleting all images', 'DELETE', () => '/v3/images'],
    ['registering an image of nobody', 'POST', () => '/v3/images'],
    ['looking at metrics', 'GET', () => '/metrics'],
  ])('forbids %s', async (_what, method, path) => {
    const body = ['PATCH', 'POST'].includes(method) ? { status: 'error', name: 'x' } : undefined;
    expect(codeOf(await ask(method, path(), body))).toEqual([403, 'job-token-forbids']);
  });

  it.each([
    { shell_deadline: null },
    { shell_deadline: '2099-01-01T00:00:00Z', progress: null },
    { shell_idle_seconds: 9999 },
  ])('forbids to move the deadlines of its shell: %j', async (body) => {
    expect(codeOf(await ask('PATCH', `/v3/jobs/${job.id}`, body))).toEqual([403, 'job-token-forbids']);
  });

  it('forbids images of other jobs', async () => {
    const theirs = await app.send('POST', '/v3/images', { body: { name: 'theirs', job_id: other.id } });
    const { id } = theirs.body as { id: string };
    for (const answer of [
      await ask('POST', '/v3/images', { name: 'mine', job_id: other.id }),
      await ask('PATCH', `/v3/images/${id}`, { arch: 'aarch64' }),
      await ask('PATCH', `/v3/images/${randomUUID()}`, { arch: 'aarch64' }),
    ])
      expect(codeOf(answer)).toEqual([403, 'job-token-forbids']);
  });

  it.each([
    ['of another job', () => `${job.id}.${other.token}`],
    ['of no job', () => `${randomUUID()}.${job.token}`],
    ['without an id', () => job.token],
    ['without a token', () => `${job.id}.`],
    ['that is odd', () => `x.${'y'.repeat(1000)}`],
  ])('is refused where it is one %s', async (_what, header) => {
    const answer = await ask('GET', `/v3/jobs/${job.id}`, undefined, { 'ims-job-token': header() });
    expect(codeOf(answer)).toEqual([401, 'job-token-needed']);
  });
});

it('answers nobody without a token at the port of workers', async () => {
  for (const path of ['/v3/jobs', '/healthz/live', '/docs', '/nothing'])
    expect(codeOf(await send(workersOrigin, 'GET', path))).toEqual([401, 'job-token-needed']);
});

it('tells nobody the token', async () => {
  for (const version of ['/v3', '/v2', ''])
    expect((await app.send('GET', `${version}/jobs/${job.id}`)).content.toString()).not.toContain(job.token);
});

it('makes no images any more with the token of a job that has ended, but still tells of the job', async () => {
  const ended = await aJob();
  await app.send('PATCH', `/v3/jobs/${ended.id}`, { body: { status: 'error' } });
  const headers = headersOf(ended);
  const late = await send(workersOrigin, 'POST', '/v3/images', { headers, body: { name: 'late', job_id: ended.id } });
  expect(codeOf(late)).toEqual([403, 'job-token-forbids']);
  const report = await send(workersOrigin, 'PATCH', `/v3/jobs/${ended.id}`, {
    headers,
    body: { status: 'packaging_artifacts' },
  });
  expect(codeOf(report)).toEqual([409, 'job-is-over']);
});
