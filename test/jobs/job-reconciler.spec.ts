import { randomUUID } from 'node:crypto';
import { Logger } from '@nestjs/common';
import { DataSource, type Repository } from 'typeorm';
import { loadConfig } from '../../src/config/config.js';
import { dataSourceOptions } from '../../src/database/data-source.js';
import { Image } from '../../src/images/image.entity.js';
import { HalfMadeImages } from '../../src/jobs/half-made-images.js';
import { JobLogs } from '../../src/jobs/job-logs.js';
import { planJob } from '../../src/jobs/job-plan.js';
import { JobReconciler } from '../../src/jobs/job-reconciler.js';
import { Job } from '../../src/jobs/job.entity.js';
import { LaunchRefused } from '../../src/jobs/launcher/job-launcher.js';
import { createTestDatabase, type TestDatabase } from '../support/database.js';
import { MemoryArtifactStore } from '../support/memory-artifact-store.js';
import { MemoryJobLauncher } from '../support/memory-job-launcher.js';

const RUNNER = 'local:test';
const BUCKET = 'boot-images';

let database: TestDatabase;
let dataSource: DataSource;
let jobs: Repository<Job>;
let images: Repository<Image>;
let store: MemoryArtifactStore;
let launcher: MemoryJobLauncher;
let reconciler: JobReconciler;

beforeAll(async () => {
  Logger.overrideLogger(false);
  database = await createTestDatabase();
  dataSource = await new DataSource(dataSourceOptions(database.url)).initialize();
  jobs = dataSource.getRepository(Job);
  images = dataSource.getRepository(Image);
});
afterAll(async () => {
  await dataSource.destroy();
  await database.drop();
});

beforeEach(async () => {
  await dataSource.query('TRUNCATE jobs, images CASCADE');
  store = new MemoryArtifactStore(['ims', BUCKET]);
  launcher = new MemoryJobLauncher(2);
  reconciler = reconcilerOf(RUNNER);
});

function reconcilerOf(runner: string, environment: Record<string, string> = {}): JobReconciler {
  const config = loadConfig({ JOB_MAX_RUNNING: '2', ...environment });
  const made = new HalfMadeImages(images, store, config);
  const logs = new JobLogs(launcher, store, config);
  return new JobReconciler(jobs, launcher, made, logs, config, runner);
}

/** A job as `POST /jobs` inserts it. */
async function insertJob(values: Partial<Job> = {}): Promise<string> {
  const id = randomUUID();
  const request = {
    job_type: 'customize' as const,
    artifact_id: randomUUID(),
    public_key_id: randomUUID(),
    image_root_archive_name: 'result',
  };
  const source = {
    arch: 'x86_64' as const,
    requireDkms: null,
    artifact: { artifact: { bucket: BUCKET, key: 'source/rootfs' }, etag: 'e', size: 1, md5: null },
  };
  const circumstances = {
    id,
    created: new Date(),
    publicKey: 'ssh-ed25519 AAAA',
    connectionInfo: await launcher.address(id),
    runner: RUNNER,
  };
  await jobs.insert(Object.assign(planJob(request, source, circumstances, loadConfig({}).jobs), values));
  return id;
}

const get = (id: string) => jobs.findOneByOrFail({ id });
const end = (id: string, values: Partial<Job> = {}) =>
  jobs.update(id, { status: 'success', ended: new Date(), ...values } as never);

/** An image that a job has begun: a record, an artifact, and an upload that goes on. */
async function halfMadeImage(jobId: string, link: Image['link'] = null): Promise<string> {
  const id = randomUUID();
  await images.insert({
    id,
    created: new Date(),
    name: 'result',
    arch: 'x86_64',
    metadata: {},
    link,
    job_id: jobId,
  } as never);
  await store.put({ bucket: BUCKET, key: `${id}/kernel` }, { body: Buffer.from('kernel') });
  if (!link) await store.upload({ bucket: BUCKET, key: `${id}/rootfs` });
  return id;
}

const keysBelow = async (bucket: string, prefix: string) => {
  const keys: string[] = [];
  for await (const { key } of store.list(bucket, prefix)) keys.push(key);
  return keys;
};

describe('launching', () => {
  it('launches what waits, the oldest first, as many as may run', async () => {
    const ids = [await insertJob(), await insertJob(), await insertJob()];
    for (const [index, id] of ids.entries()) await jobs.update(id, { created: new Date(2026, 0, 1 + index) });
    await reconciler.pass();
    expect(await launcher.list()).toEqual(ids.slice(0, 2));
    expect((await get(ids[2]!)).status_reason).toContain('JOB_MAX_RUNNING lets 2 run at once');
    launcher.finish(ids[0]!, null);
    await end(ids[0]!);
    await reconciler.pass();
    await reconciler.pass();
    expect(await launcher.list()).toContain(ids[2]);
    expect((await get(ids[2]!)).status_reason).toBeNull();
  });

  it('launches a job once, however many look', async () => {
    const id = await insertJob();
    let launches = 0;
    const launch = launcher.launch.bind(launcher);
    launcher.launch = async (spec) => {
      launches++;
      await launch(spec);
    };
    await Promise.all([reconciler.pass(), reconcilerOf(RUNNER).pass(), reconcilerOf(RUNNER).pass()]);
    expect([launches, (await get(id)).launched]).toEqual([1, expect.any(Date)]);
  });

  it('tries again what could not be launched just now', async () => {
    const id = await insertJob();
    launcher.failures.push(new Error('the API server is away'));
    await reconciler.pass();
    expect(await get(id)).toMatchObject({ status: 'creating', launched: null });
    await reconciler.pass();
    expect(await launcher.list()).toEqual([id]);
  });

  it('ends what can never be launched, with the reason', async () => {
    const id = await insertJob();
    launcher.failures.push(new LaunchRefused('this machine has no loop devices'));
    await reconciler.pass();
    expect(await get(id)).toMatchObject({ status: 'error', status_reason: 'this machine has no loop devices' });
  });

  it('leaves jobs of other runners alone', async () => {
    const id = await insertJob();
    await reconcilerOf('local:other').pass();
    expect((await get(id)).launched).toBeNull();
  });
});

describe('what ended without a word', () => {
  it('ends with the reason that the launcher gives', async () => {
    const id = await insertJob();
    await reconciler.pass();
    launcher.finish(id, 'the phase shell was killed');
    await reconciler.pass();
    expect(await get(id)).toMatchObject({
      status: 'error',
      status_reason: 'the phase shell was killed',
      progress: null,
    });
  });

  it('ends with a reason also where nobody knows one', async () => {
    const id = await insertJob();
    await reconciler.pass();
    await launcher.remove(id);
    await reconciler.pass();
    expect((await get(id)).status_reason).toContain('before it could say why');
  });

  it('is a success where only the last words were lost', async () => {
    const id = await insertJob();
    await reconciler.pass();
    const image = await halfMadeImage(id, { path: 's3://boot-images/x/manifest.json', etag: '', type: 's3' });
    launcher.finish(id, null);
    await reconciler.pass();
    expect(await get(id)).toMatchObject({ status: 'success', resultant_image_id: image });
    await reconciler.pass();
    expect(await keysBelow(BUCKET, image)).toEqual([`${image}/kernel`]);
  });
});

describe('what has ended', () => {
  it('gives back what it holds, and keeps its log', async () => {
    const id = await insertJob();
    await reconciler.pass();
    launcher.print(id, 'sshd', 'what happened');
    launcher.finish(id, null);
    await end(id);
    await reconciler.pass();
    expect((await get(id)).released).toBeInstanceOf(Date);
    expect(await keysBelow('ims', `jobs/${id}/`)).toEqual([`jobs/${id}/logs/sshd.log`]);
  });

  it('lets a worker say its last words before it is ended', async () => {
    const id = await insertJob();
    await reconciler.pass();
    await end(id);
    await reconciler.pass();
    expect((await launcher.observe(id)).state).toBe('running');
    await end(id, { ended: new Date(Date.now() - 11_000) });
    await reconciler.pass();
    expect((await launcher.observe(id)).state).toBe('ended');
  });

  it('leaves no half-made image, nor an upload', async () => {
    const id = await insertJob();
    await reconciler.pass();
    const image = await halfMadeImage(id);
    launcher.finish(id, 'it died');
    await reconciler.pass();
    await reconciler.pass();
    expect(await images.findOneBy({ id: image })).toBeNull();
    expect([await keysBelow(BUCKET, image), store.openUploads()]).toEqual([[], []]);
  });

  it('is released in the end, also where the store is away for a while', async () => {
    const id = await insertJob();
    await reconciler.pass();
    launcher.print(id, 'sshd', 'what happened');
    launcher.finish(id, 'it died');
    const put = store.put.bind(store);
    store.put = () => Promise.reject(new Error('the store is away'));
    await reconciler.pass();
    expect((await get(id)).released).toBeNull();
    store.put = put;
    await reconciler.pass();
    expect((await get(id)).released).toBeInstanceOf(Date);
  });

  it('goes with its log when it was kept long enough', async () => {
    const id = await insertJob();
    await reconciler.pass();
    launcher.finish(id, null);
    await end(id, { ended: new Date(Date.now() - 60_000) });
    await reconcilerOf(RUNNER, { JOB_RETENTION_SECONDS: '120' }).pass();
    expect(await jobs.existsBy({ id })).toBe(true);
    const shorter = reconcilerOf(RUNNER, { JOB_RETENTION_SECONDS: '30' });
    await shorter.pass();
    await shorter.pass();
    expect(await jobs.existsBy({ id })).toBe(false);
  });
});

describe('what was deleted', () => {
  it.each(['creating', 'running', 'ended', 'released'])('leaves nothing where it was %s', async (state) => {
    const id = await insertJob();
    if (state !== 'creating') await reconciler.pass();
    if (state === 'running') await halfMadeImage(id);
    if (state === 'ended' || state === 'released') launcher.finish(id, null);
    if (state === 'released') await end(id).then(() => reconciler.pass());
    await jobs.update(id, { deleted: new Date() });
    await reconciler.pass();
    expect(await jobs.existsBy({ id })).toBe(false);
    expect([await launcher.list(), await images.count(), await keysBelow('ims', ''), store.openUploads()]).toEqual([
      [],
      0,
      [],
      [],
    ]);
  });

  it('goes with the next look where a step fails', async () => {
    const id = await insertJob();
    await reconciler.pass();
    const remove = launcher.remove.bind(launcher);
    launcher.remove = () => Promise.reject(new Error('busy'));
    await jobs.update(id, { deleted: new Date() });
    await reconciler.pass();
    expect(await jobs.existsBy({ id })).toBe(true);
    launcher.remove = remove;
    await reconciler.pass();
    expect(await jobs.existsBy({ id })).toBe(false);
  });
});

it('what no record owns is removed', async () => {
  const id = await insertJob();
  await reconciler.pass();
  await jobs.delete(id);
  await reconciler.pass();
  expect(await launcher.list()).toEqual([]);
});

it('jobs of a server that answers for nothing any more end', async () => {
  const id = await insertJob();
  await reconciler.pass();
  const other = reconcilerOf('local:other');
  await other.pass();
  expect((await get(id)).status).toBe('creating');
  await jobs.update(id, { lease_until: new Date(Date.now() - 1000) });
  await other.pass();
  expect(await get(id)).toMatchObject({ status: 'error', status_reason: expect.stringContaining('has stopped') });
});
