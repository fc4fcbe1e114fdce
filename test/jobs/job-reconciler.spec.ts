import { randomUUID } from 'node:crypto';
import { buffer } from 'node:stream/consumers';
import { jest } from '@jest/globals';
import { Logger } from '@nestjs/common';
import { DataSource, type Repository } from 'typeorm';
import { loadConfig } from '../../src/config/config.js';
import { dataSourceOptions } from '../../src/database/data-source.js';
import { Image } from '../../src/images/image.entity.js';
import { HalfMadeImages } from '../../src/jobs/half-made-images.js';
import { JobLogs } from '../../src/jobs/job-logs.js';
import { planJob } from '../../src/jobs/job-plan.js';
import { JobReconciler } from '../../src/jobs/job-reconciler.js';
import { RunnerLease } from '../../src/jobs/runner-lease.js';
import { Notices } from '../../src/database/notices.js';
import { Job } from '../../src/jobs/job.entity.js';
import { LaunchRefused } from '../../src/jobs/launcher/job-launcher.js';
import { createTestDatabase, type TestDatabase } from '../support/database.js';
import { MemoryArtifactStore } from '../support/memory-artifact-store.js';
import { MemoryJobLauncher } from '../support/memory-job-launcher.js';
import { sleep, until } from '../support/system.js';

const RUNNER = 'local:test';
const BUCKET = 'boot-images';

let database: TestDatabase;
let notices: Notices;
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
  notices = new Notices(loadConfig({ DATABASE_URL: database.url }), dataSource);
});
afterAll(async () => {
  await notices.onApplicationShutdown();
  await dataSource.destroy();
  await database.drop();
});

beforeEach(async () => {
  await dataSource.query('TRUNCATE jobs, images, runner_leases CASCADE');
  store = new MemoryArtifactStore(['ims', BUCKET]);
  launcher = new MemoryJobLauncher(2);
  reconciler = reconcilerOf(RUNNER);
});

function reconcilerOf(
  runner: string,
  environment: Record<string, string> = {},
  on = launcher,
  lease = new RunnerLease(dataSource, runner, 'this server'),
): JobReconciler {
  const config = loadConfig({ JOB_MAX_RUNNING: '2', ...environment });
  const made = new HalfMadeImages(images, store, config);
  const logs = new JobLogs(on, store, config);
  return new JobReconciler(jobs, on, made, logs, config, lease, notices);
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
    recipe: null,
  };
  const circumstances = {
    id,
    created: new Date(),
    publicKey: 'ssh-ed25519 AAAA',
    connectionInfo: await launcher.address(id),
    runner: RUNNER,
    token: 'token',
  };
  await jobs.insert(Object.assign(planJob(request, source, circumstances, loadConfig({}).jobs), values));
  return id;
}

/** Has one call of a method fail, as where a connection breaks or a server dies just then. */
function failOnce<Target extends object>(target: Target, method: keyof Target, when: 'before' | 'after'): void {
  const own = Object.getOwnPropertyDescriptor(target, method);
  const real = target[method] as (...args: unknown[]) => Promise<unknown>;
  const restore = () => (own ? Object.defineProperty(target, method, own) : delete (target as never)[method]);
  const failing = async (...args: unknown[]) => {
    restore();
    if (when === 'after') await real.apply(target, args);
    throw new Error(`broken ${when} ${String(method)}`);
  };
  Object.defineProperty(target, method, { value: failing, configurable: true, writable: true });
}

/** Looks until nothing changes any more. */
async function settle(): Promise<void> {
  for (let looks = 0; looks < 4; looks++) await reconciler.pass();
}

/** What was said of a job, in order. */
const reasonsOf = async (id: string) => {
  const events: { status_reason: string | null }[] = await dataSource.query(
    'SELECT status_reason FROM job_events WHERE job_id = $1 ORDER BY id',
    [id],
  );
  return events.map(({ status_reason }) => status_reason);
};

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
    expect((await launcher.list()).toSorted()).toEqual(ids.slice(0, 2).toSorted());
    expect((await get(ids[2]!)).status_reason).toContain('JOB_MAX_RUNNING lets 2 run at once');
    launcher.finish(ids[0]!, null);
    await end(ids[0]!);
    await reconciler.pass();
    await reconciler.pass();
    expect(await launcher.list()).toContain(ids[2]);
    expect((await get(ids[2]!)).status_reason).toBeNull();
  });

  it('takes no job for dead that another server is about to launch', async () => {
    const id = await insertJob();
    const launch = launcher.launch.bind(launcher);
    let launches = 0;
    launcher.launch = async (spec) => {
      // A launch takes its time, and others look meanwhile.
      if (launches++ === 0) await reconcilerOf(RUNNER).pass();
      await launch(spec);
    };
    await reconciler.pass();
    await reconcilerOf(RUNNER).pass();
    expect(await get(id)).toMatchObject({ status: 'creating', launched: expect.any(Date), ended: null });
    expect(await launcher.list()).toEqual([id]);
  });

  it('tries again what could not be launched just now, and says so', async () => {
    const id = await insertJob();
    launcher.failures.push(new Error('connect ECONNREFUSED 10.1.2.3'), new Error('connect ECONNREFUSED 10.1.2.3'));
    await reconciler.pass();
    await reconciler.pass();
    const { status, launched, status_reason } = await get(id);
    expect({ status, launched }).toEqual({ status: 'creating', launched: null });
    expect(status_reason).toMatch(/tried again/);
    expect(status_reason).not.toContain('10.1.2.3');
    // Said once, not with each look.
    expect(await reasonsOf(id)).toEqual([null, status_reason]);
    await reconciler.pass();
    expect(await launcher.list()).toEqual([id]);
    expect(await get(id)).toMatchObject({ status_reason: null, launched: expect.any(Date) });
  });

  it('says so where it cannot even be asked how many may run', async () => {
    const id = await insertJob();
    failOnce(launcher, 'free', 'before');
    await reconciler.pass();
    expect(await get(id)).toMatchObject({ launched: null, status_reason: expect.stringContaining('tried again') });
    await reconciler.pass();
    expect(await get(id)).toMatchObject({ launched: expect.any(Date), status_reason: null });
  });

  it('does not lose the reason of a job that fails while it is launched', async () => {
    const id = await insertJob();
    const launch = launcher.launch.bind(launcher);
    launcher.launch = async (spec) => {
      await launch(spec);
      await end(id, { status: 'error', status_reason: 'no such image' });
      launcher.finish(id, null);
    };
    await settle();
    expect(await get(id)).toMatchObject({
      status: 'error',
      status_reason: 'no such image',
      released: expect.any(Date),
    });
  });

  it('gives back what was launched for a job that ended meanwhile', async () => {
    const id = await insertJob();
    const launch = launcher.launch.bind(launcher);
    launcher.launch = async (spec) => {
      await end(id, { status: 'error', released: new Date() });
      await launch(spec);
    };
    await reconciler.pass();
    await end(id, { status: 'error', ended: new Date(Date.now() - 11_000) });
    await reconciler.pass();
    expect((await launcher.observe(id)).state).toBe('ended');
  });

  it('removes what was launched for a job that was deleted meanwhile', async () => {
    const id = await insertJob();
    const launch = launcher.launch.bind(launcher);
    launcher.launch = async (spec) => {
      await jobs.update(id, { deleted: new Date() });
      await launch(spec);
    };
    await settle();
    expect([await launcher.list(), await jobs.count()]).toEqual([[], 0]);
  });

  it('does not launch what was deleted since it looked', async () => {
    const id = await insertJob();
    const find = jobs.find.bind(jobs);
    const looked = jest.spyOn(jobs, 'find').mockImplementation(async (options) => {
      const found = await find(options);
      if (found.some((job) => job.id === id)) await jobs.update(id, { deleted: new Date() });
      return found;
    });
    await reconciler.pass();
    looked.mockRestore();
    expect([launcher.launches.size, await jobs.existsBy({ id })]).toEqual([0, false]);
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
    expect((await get(id)).status_reason).toContain('was deleted');
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

describe('a shell whose deadline has passed', () => {
  const passed = (minutes: number): Partial<Job> => ({
    status: 'waiting_on_user',
    shell_deadline: new Date(Date.now() - minutes * 60_000),
  });
  const openShell = async (values: Partial<Job>) => {
    const id = await insertJob();
    await reconciler.pass();
    await jobs.update(id, values as never);
    return id;
  };

  it('is ended where its worker does not do it', async () => {
    const id = await openShell(passed(3));
    await reconciler.pass();
    expect(await get(id)).toMatchObject({
      status: 'error',
      status_reason: expect.stringMatching(/deadline of the shell.*JOB_SHELL_SECONDS/),
    });
    await end(id, { status: 'error', ended: new Date(Date.now() - 11_000) });
    await reconciler.pass();
    expect((await launcher.observe(id)).state).toBe('ended');
  });

  it.each<[string, Partial<Job>]>([
    ['the worker has still time to close it', passed(1)],
    ['the job has gone on', { ...passed(3), status: 'packaging_artifacts' }],
    ['it stays open for ever', { status: 'waiting_on_user', shell_deadline: null }],
  ])('is left alone where %s', async (_why, values) => {
    const id = await openShell(values);
    await reconciler.pass();
    expect((await get(id)).ended).toBeNull();
  });

  it('is left alone where the deadline is moved just then', async () => {
    const id = await openShell(passed(3));
    const observe = launcher.observe.bind(launcher);
    launcher.observe = async (jobId) => {
      await jobs.update(id, { shell_deadline: new Date(Date.now() + 60_000) });
      return observe(jobId);
    };
    await reconciler.pass();
    expect((await get(id)).ended).toBeNull();
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

  it('is released in the end, also where a log cannot be read', async () => {
    const id = await insertJob();
    await reconciler.pass();
    for (const container of ['prepare', 'sshd', 'buildenv-sidecar']) launcher.print(id, container, 'what happened');
    launcher.finish(id, 'its node is gone');
    const log = launcher.log.bind(launcher);
    launcher.log = async function* (jobId, container, from, follow) {
      if (container === 'prepare') throw new Error('no route to host');
      yield* log(jobId, container, from, follow);
    };
    const kept = async (container: string) =>
      (await buffer(await store.read({ bucket: 'ims', key: `jobs/${id}/logs/${container}.log` }))).toString();
    await reconciler.pass();
    expect([(await get(id)).released, await kept('sshd')]).toEqual([null, 'what happened']);
    // What was kept stays, also where it cannot be read any more.
    launcher.log = async function* () {
      yield* [];
      throw new Error('no route to host');
    };
    await jobs.update(id, { ended: new Date(Date.now() - 121_000) });
    await reconciler.pass();
    expect((await get(id)).released).toBeInstanceOf(Date);
    expect(await Promise.all(['prepare', 'sshd', 'buildenv-sidecar'].map(kept))).toEqual([
      expect.stringContaining('could not be read'),
      'what happened',
      'what happened',
    ]);
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

describe('a job whose step takes long', () => {
  /** More than steps that go on at once. */
  const MANY = 20;
  let answer: () => void;
  let silence: Promise<void>;

  beforeEach(() => {
    silence = new Promise((resolve) => (answer = resolve));
  });

  /** Has each call of a method wait for jobs of these ids until `answer` is called. */
  const hang = (method: 'remove' | 'observe' | 'release', ids: readonly string[]) => {
    const calls: string[] = [];
    const real = launcher[method].bind(launcher) as (id: string) => Promise<never>;
    launcher[method] = async (id: string) => {
      if (ids.includes(id)) {
        calls.push(id);
        await silence;
      }
      return real(id);
    };
    return calls;
  };

  it.each(['remove', 'observe', 'release'] as const)(
    'stalls no other, and is asked once only: %s',
    async (method) => {
      launcher = new MemoryJobLauncher();
      reconciler = reconcilerOf(RUNNER);
      const slow = await Promise.all(Array.from({ length: MANY }, () => insertJob()));
      await reconciler.pass();
      if (method === 'release') for (const id of slow) launcher.finish(id, 'it died');
      if (method === 'remove') await jobs.updateAll({ deleted: new Date() });
      const calls = hang(method, slow);
      reconciler.start('http://127.0.0.1:1');
      try {
        await until('some hang', async () => calls.length > 0);
        const id = await insertJob();
        reconciler.wake();
        const begun = Date.now();
        await until('another is launched', async () => (await get(id)).launched !== null);
        expect(Date.now() - begun).toBeLessThan(3000);
        await jobs.update(id, { deleted: new Date() });
        await until('it is removed', async () => !(await jobs.existsBy({ id })));
        expect(calls).toHaveLength(new Set(calls).size);
        answer();
        if (method !== 'remove') await jobs.updateAll({ deleted: new Date() });
        await until('all are removed', async () => (await jobs.count()) === 0);
      } finally {
        answer();
        await reconciler.onApplicationShutdown();
      }
    },
    60_000,
  );
});

describe('what no record owns', () => {
  it('is removed after a while', async () => {
    const hasty = reconcilerOf(RUNNER, { JOB_UNOWNED_SECONDS: '1' });
    const id = await insertJob();
    await hasty.pass();
    await jobs.delete(id);
    await hasty.pass();
    expect(await launcher.list()).toEqual([id]);
    await sleep(1000);
    await hasty.pass();
    expect(await launcher.list()).toEqual([]);
  });

  it('stays where its record comes back in time', async () => {
    const id = await insertJob();
    const record = await get(id);
    await settle();
    await jobs.delete(id);
    await settle();
    await jobs.insert(record);
    await settle();
    expect((await get(id)).ended).toBeNull();
    expect(await launcher.list()).toEqual([id]);
  });
});

describe('jobs of another server on the database', () => {
  const agoSeconds = (seconds: number) => new Date(Date.now() - seconds * 1000);
  let other: JobReconciler;

  beforeEach(() => {
    other = reconcilerOf('local:other', {}, new MemoryJobLauncher());
  });

  it('go on while it answers for them', async () => {
    const id = await insertJob();
    await reconciler.pass();
    await other.pass();
    expect(await get(id)).toMatchObject({ status: 'creating', ended: null });
  });

  it.each(['launched', 'not yet launched'])('end when it answers for nothing any more: %s', async (state) => {
    const id = await insertJob();
    if (state === 'launched') await reconciler.pass();
    await jobs.update(id, { lease_until: agoSeconds(1) });
    await other.pass();
    expect(await get(id)).toMatchObject({ status: 'error', status_reason: expect.stringContaining('has stopped') });
  });

  it('end also where it died before it looked once', async () => {
    const id = await insertJob({ created: agoSeconds(61), lease_until: agoSeconds(1) });
    await other.pass();
    expect((await get(id)).status).toBe('error');
  });

  it('are answered for as long as they hold anything', async () => {
    const id = await insertJob();
    await reconciler.pass();
    launcher.finish(id, null);
    await end(id, { lease_until: agoSeconds(1) });
    store.put = () => Promise.reject(new Error('the store is away'));
    launcher.print(id, 'sshd', 'a log that cannot be kept');
    await reconciler.pass();
    expect((await get(id)).lease_until!.getTime()).toBeGreaterThan(Date.now());
  });

  it('leave nothing in the store when it has long been gone', async () => {
    const [ended, deleted] = [await insertJob(), await insertJob()];
    await reconciler.pass();
    await store.put({ bucket: 'ims', key: `jobs/${deleted}/logs/sshd.log` }, { body: Buffer.from('kept') });
    for (const id of [ended, deleted]) await halfMadeImage(id);
    await end(ended, { status: 'error', lease_until: agoSeconds(3000) });
    await jobs.update(deleted, { deleted: new Date(), lease_until: agoSeconds(3000) });
    await other.pass();
    expect([await images.count(), await jobs.count()]).toEqual([2, 2]);
    await jobs.updateAll({ lease_until: agoSeconds(3700) });
    await other.pass();
    expect([await images.count(), await keysBelow(BUCKET, ''), await keysBelow('ims', '')]).toEqual([0, [], []]);
    expect(store.openUploads()).toEqual([]);
    expect((await jobs.find()).map(({ id, released }) => [id, released])).toEqual([[ended, expect.any(Date)]]);
  });
});

describe('a server that dies, or loses the database, at any step', () => {
  /** The life of a job: it is launched, ends without a word after it began an image, and is deleted. */
  async function live(breakLaunch?: () => void, breakEnd?: () => void): Promise<string> {
    const id = await insertJob();
    breakLaunch?.();
    await settle();
    launcher.print(id, 'sshd', 'what happened');
    await halfMadeImage(id);
    launcher.finish(id, 'it died');
    breakEnd?.();
    await settle();
    return id;
  }

  async function expectEndedWell(id: string): Promise<void> {
    expect(await get(id)).toMatchObject({ status: 'error', status_reason: 'it died', released: expect.any(Date) });
    expect(await keysBelow('ims', '')).toEqual([`jobs/${id}/logs/sshd.log`]);
    expect([await images.count(), await keysBelow(BUCKET, ''), store.openUploads()]).toEqual([0, [], []]);
  }

  const launches: [string, () => void][] = (['before', 'after'] as const).flatMap((when): [string, () => void][] => [
    [`${when} it launched`, () => failOnce(launcher, 'launch', when)],
    [`${when} it wrote that it launched`, () => failOnce(jobs, 'update', when)],
  ]);

  it.each(launches)('%s: the job runs, and ends as it would have', async (_step, breakAt) => {
    await expectEndedWell(await live(breakAt));
  });

  const ends: [string, () => void][] = (['before', 'after'] as const).flatMap((when): [string, () => void][] => [
    [`${when} it wrote that the job has ended`, () => failOnce(jobs, 'update', when)],
    [`${when} it released`, () => failOnce(launcher, 'release', when)],
    [`${when} it kept the log`, () => failOnce(store, 'put', when)],
    [`${when} it aborted uploads`, () => failOnce(store, 'abortUploads', when)],
    [`${when} it removed an artifact`, () => failOnce(store, 'remove', when)],
    [`${when} it removed the record of the image`, () => failOnce(images, 'delete', when)],
  ]);

  it.each(ends)('%s: the job ends as it would have', async (_step, breakAt) => {
    await expectEndedWell(await live(undefined, breakAt));
  });

  const removals: [string, () => void][] = (['before', 'after'] as const).flatMap((when): [string, () => void][] => [
    [`${when} it removed what ran`, () => failOnce(launcher, 'remove', when)],
    [`${when} it removed the log`, () => failOnce(store, 'remove', when)],
    [`${when} it removed the record`, () => failOnce(jobs, 'delete', when)],
  ]);

  it.each(removals)('%s: nothing is left of a deleted job', async (_step, breakAt) => {
    const id = await live();
    await jobs.update(id, { deleted: new Date() });
    breakAt();
    await settle();
    expect([await jobs.count(), await launcher.list(), await keysBelow('ims', '')]).toEqual([0, [], []]);
  });

  it('launches again what it launched and could not say so', async () => {
    const id = await insertJob();
    failOnce(jobs, 'update', 'before');
    await reconciler.pass();
    // The server is gone, and what it ran.
    launcher = new MemoryJobLauncher(2);
    reconciler = reconcilerOf(RUNNER);
    await reconciler.pass();
    expect([await launcher.list(), (await get(id)).ended]).toEqual([[id], null]);
  });
});

describe('start and stop', () => {
  it('looks when it is woken, and launches nothing once it has stopped', async () => {
    let looks = 0;
    const list = launcher.list.bind(launcher);
    launcher.list = async () => {
      looks++;
      return list();
    };
    reconciler.start('http://127.0.0.1:1');
    const id = await insertJob();
    reconciler.wake();
    await until('it is launched', async () => (await get(id)).launched !== null);
    expect(launcher.jobs.get(id)!.spec!.server_url).toBe('http://127.0.0.1:1');
    launcher.finish(id, 'it died');
    await until('it has ended', async () => (await get(id)).released !== null);
    await reconciler.onApplicationShutdown();
    const [late, before] = [await insertJob(), looks];
    reconciler.wake();
    await sleep(100);
    expect([(await get(late)).launched, looks]).toEqual([null, before]);
  });

  it('holds the lease also while a look takes long', async () => {
    // All but what the lease is held by: the database needs its clocks.
    jest.useFakeTimers({
      doNotFake: [
        'Date',
        'hrtime',
        'nextTick',
        'performance',
        'queueMicrotask',
        'setImmediate',
        'clearImmediate',
        'setTimeout',
        'clearTimeout',
      ],
    });
    const id = await insertJob();
    let goOn: (() => void) | undefined;
    launcher.launch = () => new Promise((resolve) => (goOn = resolve));
    try {
      reconciler.start('http://127.0.0.1:1');
      await until('it launches', async () => goOn !== undefined);
      await jobs.update(id, { lease_until: new Date(Date.now() + 1000) });
      jest.advanceTimersByTime(15_000);
      const held = async () => (await get(id)).lease_until!.getTime() > Date.now() + 30_000;
      await until('the lease is held', held);
    } finally {
      goOn?.();
      await reconciler.onApplicationShutdown();
      jest.useRealTimers();
    }
  });

  it('stops the launcher after its last look', async () => {
    const order: string[] = [];
    await insertJob();
    launcher.launch = async () => {
      await sleep(100);
      order.push('launched');
    };
    launcher.stop = async () => void order.push('stopped');
    reconciler.start('http://127.0.0.1:1');
    await sleep(50);
    await reconciler.onApplicationShutdown();
    expect(order).toEqual(['launched', 'stopped']);
  });
});

describe('several servers of one runner', () => {
  /** Jobs that are begun at once, and how often servers die meanwhile. */
  const MANY = 1000;
  const SECONDS = 1.5;
  let servers: JobReconciler[];
  let named = 0;

  const startServer = () => {
    const lease = new RunnerLease(dataSource, RUNNER, `server ${++named}`, SECONDS);
    const server = reconcilerOf(RUNNER, {}, launcher, lease);
    server.start('http://127.0.0.1:1');
    servers.push(server);
    return server;
  };
  const insertJobs = (count: number) => Promise.all(Array.from({ length: count }, () => insertJob()));
  const countOf = (where: string) =>
    dataSource
      .query<{ count: string }[]>(`SELECT count(*) FROM jobs WHERE ${where}`)
      .then(([row]) => Number(row!.count));

  beforeEach(() => {
    servers = [];
    launcher = new MemoryJobLauncher(Infinity, { first: 1, last: 2 * MANY });
    // As in a cluster: jobs go on when a server stops.
    launcher.stop = async () => {};
  });
  afterEach(() => Promise.all(servers.map((server) => server.onApplicationShutdown())));

  it('launch each of a thousand jobs once, and end and remove all, also where the one that works on them stops', async () => {
    const [first] = [startServer(), startServer(), startServer()];
    const ids: string[] = [];
    for (let round = 0; round < 10; round++) {
      ids.push(...(await insertJobs(MANY / 10)));
      for (const server of servers) server.wake();
      for (const id of ids.filter((_, index) => index % 10 === round)) await end(id);
      if (round === 5) await first.onApplicationShutdown();
    }
    await until(
      'all are launched or ended',
      async () => (await countOf('launched IS NULL AND ended IS NULL')) === 0,
      60,
    );
    await dataSource.query('UPDATE jobs SET deleted = now()');
    for (const server of servers) server.wake();
    await until('all are removed', async () => (await jobs.count()) === 0, 60);
    expect(await launcher.list()).toEqual([]);
    expect(Math.max(...launcher.launches.values())).toBe(1);
    expect(launcher.launches.size).toBeGreaterThan(MANY / 2);
  }, 150_000);

  it('wait for the one that works on the jobs, and go on when it has died', async () => {
    const [worker, other] = [startServer(), startServer()];
    await until(
      'a server has the lease',
      async () => (await dataSource.query('SELECT 1 FROM runner_leases')).length > 0,
    );
    const [{ holder }]: [{ holder: string }] = await dataSource.query('SELECT holder FROM runner_leases');
    const [dies, goesOn] = holder === `server ${named}` ? [other, worker] : [worker, other];
    // Dead: it neither extends its lease nor gives it up.
    jest.spyOn(dies as never as { holdLease(): Promise<void> }, 'holdLease').mockResolvedValue();
    const id = await insertJob();
    goesOn.wake();
    await until('the job is launched', async () => (await get(id)).launched !== null, 20);
    expect(launcher.launches.get(id)).toBe(1);
  }, 40_000);
});
