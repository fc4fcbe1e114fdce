import { DataSource } from 'typeorm';
import { Job } from '../../src/jobs/job.entity.js';
import { type Answer, startTestApp, type TestApp } from '../support/app.js';
import { createTestDatabase, type TestDatabase } from '../support/database.js';
import { aJobSpec } from '../support/job-spec.js';
import { MemoryJobLauncher } from '../support/memory-job-launcher.js';
import { anImage, aPublicKey } from '../support/records.js';
import { sleep } from '../support/system.js';

/** Logs of a job that has not been launched. What comes afterwards is in test/e2e/streams.spec.ts. */

let database: TestDatabase;
let app: TestApp;
let launcher: MemoryJobLauncher;
let id: string;

beforeAll(async () => {
  database = await createTestDatabase();
  launcher = new MemoryJobLauncher();
  app = await startTestApp({ databaseUrl: database.url, launcher });
});
afterAll(async () => {
  await app.close();
  await database.drop();
});

beforeEach(async () => {
  const [{ id: artifact_id }, public_key_id] = [await anImage(app), await aPublicKey(app)];
  const body = { job_type: 'customize', artifact_id, public_key_id, image_root_archive_name: 'result' };
  ({ id } = (await app.send('POST', '/v3/jobs', { body })).body as { id: string });
});

const jobs = () => app.nest.get(DataSource).getRepository(Job);

/** Asks for a log, and looks for an answer after a while. */
async function ask(query: string, headers: Record<string, string> = {}) {
  let isOver = false;
  const answer = app.send('GET', `/v3/jobs/${id}/logs?${query}`, { headers }).finally(() => (isOver = true));
  await sleep(500);
  return { answer, wasOver: isOver };
}

const textOf = ({ status, content }: Answer) => [status, content.toString()];

it.each([
  ['of one container', 'container=sshd&', {}, 'a line\n'],
  ['of all containers', '', {}, 'sshd | a line\n'],
  ['as server-sent events', '', { accept: 'text/event-stream' }, expect.stringContaining('"line":"a line"')],
])('are followed from the launch on: %s', async (_how, query, headers, expected) => {
  const { answer, wasOver } = await ask(`${query}follow=true`, headers as Record<string, string>);
  expect(wasOver).toBe(false);
  await launcher.launch(aJobSpec({ job_id: id }));
  await jobs().update(id, { launched: new Date() });
  launcher.print(id, 'sshd', 'a line\n');
  await sleep(500);
  launcher.finish(id, null);
  expect(textOf(await answer)).toEqual([200, expected]);
});

it('are followed no longer where the job ends without a launch', async () => {
  const { answer, wasOver } = await ask('follow=true');
  await jobs().update(id, { status: 'error', ended: new Date() });
  expect([wasOver, textOf(await answer)]).toEqual([false, [200, '']]);
});

it('are followed no longer where the job is deleted', async () => {
  const { answer, wasOver } = await ask('container=sshd&follow=true');
  await app.send('DELETE', `/v3/jobs/${id}`);
  expect([wasOver, textOf(await answer)]).toEqual([false, [200, '']]);
});

it('are empty at once for who does not follow', async () => {
  const { answer, wasOver } = await ask('container=sshd');
  expect([wasOver, textOf(await answer)]).toEqual([true, [200, '']]);
});
