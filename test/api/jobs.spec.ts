import { randomUUID } from 'node:crypto';
import { DataSource } from 'typeorm';
import { Job } from '../../src/jobs/job.entity.js';
import { JobReconciler } from '../../src/jobs/job-reconciler.js';
import { JOB_STATUSES } from '../../src/protocol/job-status.js';
import { type Answer, startTestApp, type TestApp } from '../support/app.js';
import { createTestDatabase, type TestDatabase } from '../support/database.js';
import { MemoryArtifactStore } from '../support/memory-artifact-store.js';
import { MemoryJobLauncher } from '../support/memory-job-launcher.js';
import { anImage, anUnlinkedImage, aPublicKey, type LinkedImage } from '../support/records.js';

const UUID = /^[\da-f]{8}(-[\da-f]{4}){3}-[\da-f]{12}$/;
const TIME = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}\+00:00$/;
const PORTS = { first: 20_000, last: 20_099 };
/** Members that versions before the third do not know. */
const ONLY_IN_V3 = [
  'status_reason',
  'status_code',
  'progress',
  'packing',
  'ended',
  'shell_deadline',
  'shell_idle_seconds',
];

let database: TestDatabase;
let app: TestApp;
let launcher: MemoryJobLauncher;
let image: LinkedImage;
let keyId: string;

beforeAll(async () => {
  database = await createTestDatabase();
  launcher = new MemoryJobLauncher(10, PORTS);
  app = await startTestApp({ databaseUrl: database.url, launcher });
  image = await anImage(app);
  keyId = await aPublicKey(app);
});
afterAll(async () => {
  await app.close();
  await database.drop();
});
afterEach(async () => {
  await app.send('DELETE', '/v3/jobs');
  await look();
});

/** Has the server look once at all jobs, as it does every two seconds where it is no test. */
const look = () => app.nest.get(JobReconciler).pass();
const table = () => app.nest.get(DataSource).getRepository(Job);

const aRequest = (values: object = {}) => ({
  job_type: 'customize',
  artifact_id: image.id,
  public_key_id: keyId,
  image_root_archive_name: 'result',
  ...values,
});

interface JobView {
  id: string;
  status: string;
  [member: string]: unknown;
}

async function aJob(values: object = {}, path = '/v3/jobs'): Promise<JobView> {
  const answer = await app.send('POST', path, { body: aRequest(values) });
  expect([answer.status, answer.body]).toEqual([201, expect.any(Object)]);
  return answer.body as JobView;
}

/** An answer that tells of a mistake: the shape that all of them have, and a sentence. */
function expectProblem(answer: Answer, status: number, sentence: RegExp | string, members?: object): void {
  expect(answer.status).toBe(status);
  expect(answer.headers['content-type']).toBe('application/problem+json');
  const { errors, ...problem } = answer.body as { detail: string; errors?: object };
  expect(problem).toEqual({
    status,
    title: {
      400: 'Bad Request',
      404: 'Not Found',
      405: 'Method Not Allowed',
      409: 'Conflict',
      415: 'Unsupported Media Type',
      422: 'Unprocessable Entity',
      503: 'Service Unavailable',
    }[status],
    detail: expect.stringMatching(sentence),
    code: expect.stringMatching(/^[a-z-]+$/),
  });
  if (members) expect(errors).toEqual(members);
  else expect(errors).toBeUndefined();
}

describe.each(['/v3', '/v2', ''])('%s/jobs', (version) => {
  const isV3 = version === '/v3';
  const at = (path = '') => `${version}/jobs${path}`;
  const post = (values: object = {}) => app.send('POST', at(), { body: aRequest(values) });
  const patch = (id: string, body: unknown) => app.send('PATCH', at(`/${id}`), { body });

  describe('POST', () => {
    it('starts a customize job with everything that was not asked for', async () => {
      const { status, headers, body } = await post();
      expect([status, headers['content-type']]).toEqual([201, 'application/json; charset=utf-8']);
      const { id } = body as { id: string };
      const port = expect.any(Number) as number;
      expect(body).toEqual({
        id: expect.stringMatching(UUID),
        created: expect.stringMatching(TIME),
        job_type: 'customize',
        status: 'creating',
        artifact_id: image.id,
        public_key_id: keyId,
        image_root_archive_name: 'result',
        kernel_file_name: 'vmlinuz',
        initrd_file_name: 'initrd',
        kernel_parameters_file_name: 'kernel-parameters',
        enable_debug: false,
        build_env_size: 10,
        job_mem_size: 8,
        require_dkms: true,
        arch: 'x86_64',
        ssh_containers: [
          {
            name: 'customize',
            jail: false,
            status: 'pending',
            connection_info: {
              customer_access: { host: '127.0.0.1', port },
              'cluster.local': { host: '127.0.0.1', port },
            },
          },
        ],
        resultant_image_id: null,
        kubernetes_job: `cray-ims-${id}-customize`,
        kubernetes_service: `cray-ims-${id}-service`,
        kubernetes_configmap: `cray-ims-${id}-configmap`,
        kubernetes_pvc: `cray-ims-${id}-job-claim`,
        kubernetes_namespace: 'ims',
        kubernetes_secret: null,
        remote_build_node: '',
        ...(isV3 && {
          status_reason: null,
          progress: null,
          status_code: null,
          packing: null,
          ended: null,
          shell_deadline: null,
          shell_idle_seconds: 86_400,
        }),
      });
    });

    it('takes what was asked for', async () => {
      const values = {
        kernel_file_name: 'vmlinux',
        initrd_file_name: 'initramfs',
        kernel_parameters_file_name: 'cmdline',
        enable_debug: true,
        build_env_size: 40,
        job_mem_size: 3,
        require_dkms: false,
      };
      const { status, body } = await post({ ...values, ssh_containers: [{ name: 'mine', jail: true }] });
      expect(status).toBe(201);
      expect(body).toMatchObject({ ...values, ssh_containers: [{ name: 'mine', jail: true }] });
    });

    it('reads words for booleans, digits for numbers, ids in any case', async () => {
      const { status, body } = await post({
        artifact_id: image.id.toUpperCase(),
        enable_debug: 'yes',
        require_dkms: 'OFF',
        build_env_size: '12',
        ssh_containers: [{ jail: 1 }],
      });
      expect(status).toBe(201);
      expect(body).toMatchObject({
        artifact_id: image.id,
        enable_debug: true,
        require_dkms: false,
        build_env_size: 12,
        ssh_containers: [{ jail: true }],
      });
    });

    it('gives an image of another architecture its kernel and its virtual machine', async () => {
      const arm = await anImage(app, { arch: 'aarch64' });
      const { body } = await post({ artifact_id: arm.id, require_dkms: false, kernel_file_name: 'vmlinuz' });
      expect(body).toMatchObject({ arch: 'aarch64', kernel_file_name: 'Image', require_dkms: true });
    });

    it.each<[string, object, object]>([
      [
        'nothing that it needs',
        {
          job_type: undefined,
          artifact_id: undefined,
          public_key_id: undefined,
          image_root_archive_name: undefined,
          x: 1,
        },
        {
          job_type: expect.anything(),
          artifact_id: expect.anything(),
          public_key_id: expect.anything(),
          image_root_archive_name: expect.anything(),
          x: expect.anything(),
        },
      ],
      ...(
        [
          ['job_type', ['bogus', null, 1, 'CUSTOMIZE']],
          ['artifact_id', ['', 'x', 5, null, `${randomUUID()}0`]],
          ['public_key_id', ['', 'x', 5, null]],
          ['image_root_archive_name', ['', 5, null, [], 'a\0b', '\ud800', 'x'.repeat(1025)]],
          ['kernel_file_name', [5, null, 'a\0b', {}]],
          ['initrd_file_name', ['', 5, null]],
          ['kernel_parameters_file_name', ['', 5, null]],
          ['enable_debug', ['perhaps', 3, null, []]],
          ['require_dkms', ['perhaps', 3, null]],
          ['build_env_size', [0, -1, 1.5, 'ten', null, 2 ** 31, true]],
          ['job_mem_size', [0, -1, 1.5, 'ten', null]],
          ['ssh_containers', ['x', 5, {}]],
          ['id', [randomUUID()]],
          ['status', ['success']],
          ['kubernetes_job', ['mine']],
        ] as [string, unknown[]][]
      ).flatMap(([member, values]) =>
        values.map((value): [string, object, object] => [
          `${member} ${JSON.stringify(value).slice(0, 40)}`,
          { [member]: value },
          { [member]: [expect.any(String)] },
        ]),
      ),
      [
        'ssh containers that are none',
        { ssh_containers: [5] },
        { ssh_containers: { 0: { _schema: [expect.any(String)] } } },
      ],
      [
        'ssh containers with wrong members',
        { ssh_containers: [{ name: '', jail: 'perhaps', port: 22 }] },
        {
          ssh_containers: {
            0: { name: [expect.any(String)], jail: [expect.any(String)], port: [expect.any(String)] },
          },
        },
      ],
    ])('refuses %s, and names the member', async (_what, values, errors) => {
      expectProblem(await post(values), 422, 'The input is not valid', errors);
    });

    it.each([
      ['no body', undefined, 400],
      ['an empty body', '', 400],
      ['null', 'null', 400],
      ['an empty object', '{}', 400],
      ['an empty list', '[]', 400],
      ['broken JSON', '{"job_type": ', 400],
      ['nesting without end', '['.repeat(65) + ']'.repeat(65), 400],
    ])('refuses %s', async (_what, body, status) => {
      const headers = { 'Content-Type': 'application/json' };
      expectProblem(await app.send('POST', at(), { headers, body }), status, /./);
    });

    it.each(['[1]', '"text"', '5', 'true'])('refuses %s, which is no object', async (body) => {
      const answer = await app.send('POST', at(), { headers: { 'Content-Type': 'application/json' }, body });
      expectProblem(answer, 422, 'Must be an object', { _schema: [expect.any(String)] });
    });

    it('refuses a body that is not said to be JSON', async () => {
      const body = JSON.stringify(aRequest());
      expectProblem(
        await app.send('POST', at(), { headers: { 'Content-Type': 'text/plain' }, body }),
        415,
        'Content-Type',
      );
      const headers = { 'Content-Type': 'application/vnd.api+json; charset=latin1' };
      expect((await app.send('POST', at(), { headers, body })).status).toBe(201);
    });

    it.each<[string, () => Promise<object>, number, RegExp]>([
      ['an image that there is not', async () => ({ artifact_id: randomUUID() }), 400, /no image .* artifact_id/],
      ['a key that there is not', async () => ({ public_key_id: randomUUID() }), 400, /no public key .* public_key_id/],
      ['a recipe that there is not', async () => ({ job_type: 'create' }), 400, /no recipe .* artifact_id/],
      ['an image without a link', async () => ({ artifact_id: await anUnlinkedImage(app) }), 400, /no link .*upload/],
      [
        'an image whose manifest is gone',
        async () => {
          const { id, manifest } = await anImage(app);
          await app.store.remove(manifest);
          return { artifact_id: id };
        },
        422,
        /no artifact at s3:\/\/boot-images\/.*manifest.json/,
      ],
      [
        'an image whose manifest has no rootfs any more',
        async () => {
          const { id, manifest } = await anImage(app);
          await app.store.put(manifest, { body: Buffer.from('{"version":"1.0","artifacts":[]}') });
          return { artifact_id: id };
        },
        422,
        /rootfs\.squashfs, and has 0/,
      ],
      [
        'an image whose manifest is too large',
        async () => {
          const { id, manifest } = await anImage(app);
          await app.store.put(manifest, { body: Buffer.alloc(1_048_577, ' ') });
          return { artifact_id: id };
        },
        422,
        /larger than 1048576 bytes/,
      ],
      [
        'an image whose rootfs is gone',
        async () => {
          const { id, rootfs } = await anImage(app);
          await app.store.remove(rootfs);
          return { artifact_id: id };
        },
        422,
        /no artifact at s3:\/\/boot-images\/.*rootfs/,
      ],
      ['two shells', async () => ({ ssh_containers: [{}, {}] }), 400, /one ssh container/],
      [
        'a shell for a create job',
        async () => ({ job_type: 'create', ssh_containers: [{}] }),
        400,
        /with enable_debug only/,
      ],
    ])('refuses %s', async (_what, values, status, sentence) => {
      const before = await table().count();
      expectProblem(await post(await values()), status, sentence);
      expect(await table().count()).toBe(before);
    });

    it('takes no ssh containers for the default', async () => {
      for (const ssh_containers of [null, [], [{}]])
        expect((await post({ ssh_containers })).body).toMatchObject({
          ssh_containers: [{ jail: false, status: 'pending' }],
        });
    });
  });

  describe('GET', () => {
    it('lists jobs, the oldest first', async () => {
      expect(await app.send('GET', at())).toMatchObject({ status: 200, body: [] });
      const ids = [await aJob(), await aJob(), await aJob()].map(({ id }) => id);
      const { body } = await app.send('GET', at());
      expect((body as JobView[]).map(({ id }) => id)).toEqual(ids);
    });

    it('shows a job as it was answered when it was started, by an id in any case', async () => {
      const job = await aJob({}, at());
      expect(await app.send('GET', at(`/${job.id}`))).toMatchObject({ status: 200, body: job });
      expect((await app.send('GET', at(`/${job.id.toUpperCase()}`))).body).toEqual(job);
      expect((await app.send('GET', at())).body).toEqual([job]);
    });

    it.each([randomUUID(), 'x', '%00', '..%2f'])('knows no job %s', async (id) => {
      expectProblem(await app.send('GET', at(`/${id}`)), 404, /There is no (job|record)|There is nothing/);
    });
  });

  describe('PATCH', () => {
    it('takes every status, and the image', async () => {
      const { id } = await aJob();
      const resultant_image_id = randomUUID();
      const steps = JOB_STATUSES.filter((status) => status !== 'error' && status !== 'success');
      for (const status of steps) expect((await patch(id, { status })).body).toMatchObject({ id, status });
      expect((await patch(id, { resultant_image_id: resultant_image_id.toUpperCase() })).body).toMatchObject({
        status: steps.at(-1),
        resultant_image_id,
      });
      const { status, body } = await patch(id, { status: 'success' });
      expect([status, body]).toEqual([200, (await app.send('GET', at(`/${id}`))).body]);
      expect(body).toMatchObject({ status: 'success', resultant_image_id });
    });

    it('calls a job a success only with its image', async () => {
      const { id } = await aJob();
      expectProblem(await patch(id, { status: 'success' }), 409, 'resultant_image_id');
      expect((await app.send('GET', at(`/${id}`))).body).toMatchObject({ status: 'creating' });
      expect((await patch(id, { status: 'success', resultant_image_id: randomUUID() })).status).toBe(200);
    });

    it.each(['error', 'success'])('leaves a job that ended with %s as it is', async (status) => {
      const { id } = await aJob();
      await patch(id, { status, resultant_image_id: randomUUID() });
      const before = (await app.send('GET', at(`/${id}`))).body;
      for (const other of JOB_STATUSES.filter((candidate) => candidate !== status))
        expectProblem(await patch(id, { status: other }), 409, `has ended with ${status}`);
      expect((await app.send('GET', at(`/${id}`))).body).toEqual(before);
      // A worker that did not hear the answer says it again.
      expect(await patch(id, { status })).toMatchObject({ status: 200, body: before });
    });

    it.each<[object, string]>([
      [{ status: 'bogus' }, 'status'],
      [{ status: null }, 'status'],
      [{ resultant_image_id: 'x' }, 'resultant_image_id'],
      [{ resultant_image_id: null }, 'resultant_image_id'],
      [{ job_type: 'create' }, 'job_type'],
      [{ created: '2018-11-21T17:19:07.830000+00:00' }, 'created'],
    ])('refuses %j', async (body, member) => {
      const { id } = await aJob();
      expectProblem(await patch(id, body), 422, member, { [member]: [expect.any(String)] });
    });

    it.each([
      [undefined, 400],
      ['null', 400],
      ['{}', 400],
      ['{', 400],
      ['[1]', 422],
    ])('refuses the body %j', async (body, status) => {
      const { id } = await aJob();
      const headers = { 'Content-Type': 'application/json' };
      expect((await app.send('PATCH', at(`/${id}`), { headers, body })).status).toBe(status);
    });

    it('looks for the job before it looks at the body', async () => {
      for (const id of [randomUUID(), 'x']) {
        expectProblem(await patch(id, { status: 'bogus' }), 404, 'There is no');
        expectProblem(await app.send('PATCH', at(`/${id}`), { body: '{' }), 404, 'There is no');
      }
    });
  });

  describe('DELETE of a job', () => {
    it('removes it for good', async () => {
      const { id } = await aJob();
      const { status, content } = await app.send('DELETE', at(`/${id}`));
      expect([status, content.length]).toEqual([204, 0]);
      for (const method of ['GET', 'DELETE'])
        expectProblem(await app.send(method, at(`/${id}`)), 404, `There is no job with the id ${id}`);
      expectProblem(await patch(id, { status: 'error' }), 404, 'There is no job');
      expect((await app.send('GET', at())).body).toEqual([]);
    });

    it('ends it where it runs, and removes its row when nothing is left of it', async () => {
      const { id } = await aJob();
      await look();
      expect(await launcher.list()).toEqual([id]);
      await app.send('DELETE', at(`/${id}`));
      await look();
      expect([await launcher.list(), await table().existsBy({ id })]).toEqual([[], false]);
    });
  });

  describe('DELETE of many', () => {
    /** Jobs of all kinds, by name. */
    async function someJobs(): Promise<Record<string, string>> {
      const ids = { fresh: '', waiting: '', failed: '', done: '', old: '' };
      for (const name of Object.keys(ids) as (keyof typeof ids)[]) ids[name] = (await aJob()).id;
      await patch(ids.waiting, { status: 'waiting_on_user' });
      await patch(ids.failed, { status: 'error' });
      await patch(ids.done, { status: 'success', resultant_image_id: randomUUID() });
      await table().update(ids.old, { created: new Date(Date.now() - 26 * 3_600_000), job_type: 'create' });
      return ids;
    }

    it.each<[string, string[]]>([
      ['', []],
      ['?status=error', ['fresh', 'waiting', 'done', 'old']],
      ['?status=ERROR&status=success', ['fresh', 'waiting', 'old']],
      ['?job_type=create', ['fresh', 'waiting', 'failed', 'done']],
      ['?job_type=customize', ['old']],
      ['?job_type=customize&status=creating', ['waiting', 'failed', 'done', 'old']],
      ['?age=1d1h', ['fresh', 'waiting', 'failed', 'done']],
      ['?age=25h', ['fresh', 'waiting', 'failed', 'done']],
      ['?age=1d3h', ['fresh', 'waiting', 'failed', 'done', 'old']],
      ['?age=0m&status=creating', ['waiting', 'failed', 'done']],
      ['?unknown=1&status=error', ['fresh', 'waiting', 'done', 'old']],
    ])('deletes what %s means', async (query, left) => {
      const ids = await someJobs();
      expect((await app.send('DELETE', at(query))).status).toBe(204);
      const { body } = await app.send('GET', at());
      const names = Object.keys(ids).filter((name) => (body as JobView[]).some(({ id }) => id === ids[name]));
      expect(names).toEqual(left);
    });

    it.each([
      '?status=bogus',
      '?status=',
      '?status=error&status=bogus',
      '?job_type=bogus',
      '?age=1x',
      '?age=',
      '?age=1d&age=2d',
    ])('deletes nothing where it does not understand %s', async (query) => {
      const { id } = await aJob();
      expectProblem(await app.send('DELETE', at(query)), 400, 'Nothing was changed');
      expect((await app.send('GET', at(`/${id}`))).status).toBe(200);
    });
  });

  it.each([
    ['PUT', '', 'DELETE, GET, HEAD, OPTIONS, POST'],
    ['PATCH', '', 'DELETE, GET, HEAD, OPTIONS, POST'],
    ['POST', `/${randomUUID()}`, 'DELETE, GET, HEAD, OPTIONS, PATCH'],
    ['PUT', `/${randomUUID()}`, 'DELETE, GET, HEAD, OPTIONS, PATCH'],
  ])('tells a client that tries %s %s what it may do', async (method, path, allowed) => {
    const answer = await app.send(method, at(path));
    expectProblem(answer, 405, allowed.split(', ')[0]!);
    expect(answer.headers['allow']).toBe(allowed);
  });

  it(
    isV3 ? 'tells of the members of version 3' : 'says nothing of the members of version 3, and takes none',
    async () => {
      const { id } = await aJob();
      const report = {
        status: 'packaging_artifacts',
        status_reason: 'it takes its time',
        status_code: 'packaging',
        progress: { stage: 'pack', done: 1, total: null },
        host_keys: [{ type: 'ssh-ed25519', key: 'AAAA', fingerprint: 'SHA256:x' }],
      };
      expect((await app.send('PATCH', `/v3/jobs/${id}`, { body: report })).status).toBe(200);
      const { body } = await app.send('GET', at(`/${id}`));
      const containers = (body as { ssh_containers: object[] }).ssh_containers;
      if (isV3) {
        const { status, status_reason, status_code, progress, host_keys } = report;
        expect(body).toMatchObject({ status, status_reason, status_code, progress, ssh_containers: [{ host_keys }] });
        return;
      }
      for (const member of ONLY_IN_V3) expect(body).not.toHaveProperty(member);
      expect(containers[0]).not.toHaveProperty('host_keys');
      for (const member of [
        'status_reason',
        'status_code',
        'progress',
        'host_keys',
        'ssh_port',
        'shell_deadline',
        'shell_idle_seconds',
      ])
        expectProblem(await patch(id, { status: 'error', [member]: null }), 422, member, {
          [member]: [expect.any(String)],
        });
    },
  );
});

it.each(['/v3', '/v2', ''])('gateways reach %s/jobs below their prefix', async (version) => {
  const job = await aJob({}, `/apis/ims${version}/jobs`);
  expect(await app.send('GET', `/apis/ims${version}/jobs/${job.id}/`)).toMatchObject({ status: 200, body: job });
  expect((await app.send('GET', `${version}/jobs`)).body).toEqual([job]);
  expect((await app.send('DELETE', `/apis/ims${version}/jobs`)).status).toBe(204);
});

describe('what a worker reports (v3)', () => {
  const report = (id: string, body: object) => app.send('PATCH', `/v3/jobs/${id}`, { body });

  it('forgets reason, code and progress of the status before', async () => {
    const { id } = await aJob();
    await report(id, {
      status: 'fetching_image',
      status_reason: 'slow',
      status_code: 'source',
      progress: { stage: 'download', done: 1, total: 2 },
    });
    const { body } = await report(id, { status: 'waiting_on_user' });
    expect(body).toMatchObject({ status_reason: null, status_code: null, progress: null });
  });

  it('says when a job ended, once', async () => {
    const { id } = await aJob();
    const { body } = await report(id, { status: 'error', status_reason: 'the disk is full' });
    expect(body).toMatchObject({ ended: expect.stringMatching(TIME), status_reason: 'the disk is full' });
    expect((await report(id, { status: 'error' })).body).toEqual(body);
  });

  it('does not let progress that comes late show on a job that has ended', async () => {
    const { id } = await aJob();
    await report(id, { status: 'error' });
    expect((await report(id, { progress: { stage: 'pack', done: 1, total: 2 } })).body).toMatchObject({
      progress: null,
    });
  });

  it('moves the shell to the port that it got', async () => {
    const { id, ssh_containers } = await aJob();
    const { body } = await report(id, { ssh_port: 40_022 });
    const [before] = ssh_containers as { connection_info: object }[];
    expect(before!.connection_info).not.toMatchObject({ customer_access: { port: 40_022 } });
    expect((body as JobView)['ssh_containers']).toEqual([
      {
        ...before,
        connection_info: {
          customer_access: { host: '127.0.0.1', port: 40_022 },
          'cluster.local': { host: '127.0.0.1', port: 40_022 },
        },
      },
    ]);
  });

  it('gives a shell its deadline when it opens, and lets it be moved', async () => {
    const { id } = await aJob();
    const { body } = await report(id, { status: 'waiting_on_user' });
    const week = 7 * 24 * 3_600_000;
    const deadline = Date.parse((body as { shell_deadline: string }).shell_deadline);
    expect(Math.abs(deadline - Date.now() - week)).toBeLessThan(60_000);
    const moved = await report(id, { shell_deadline: '2999-01-01T00:00:00Z', shell_idle_seconds: 60 });
    expect(moved.body).toMatchObject({ shell_deadline: '2999-01-01T00:00:00.000000+00:00', shell_idle_seconds: 60 });
    const never = await report(id, { shell_deadline: null, shell_idle_seconds: null });
    expect(never.body).toMatchObject({ shell_deadline: null, shell_idle_seconds: null });
  });

  it.each<[string, unknown[]]>([
    ['status_reason', ['', 5, null, 'x'.repeat(8193)]],
    ['status_code', ['', 5, null, 'out of luck']],
    [
      'progress',
      [
        5,
        {},
        { stage: 5, done: 1, total: 1 },
        { stage: 'a', done: 'b', total: 1 },
        { stage: 'a', done: 1.5, total: 1 },
      ],
    ],
    [
      'packing',
      [
        5,
        {},
        { method: 'magic', bytes: 1, bytes_reused: 0, bytes_new: 1, seconds: {} },
        { method: 'full', bytes: -1, bytes_reused: 0, bytes_new: 1, seconds: {} },
        { method: 'full', bytes: 1, bytes_reused: 0, bytes_new: 1, seconds: { compress: 'long' } },
      ],
    ],
    [
      'host_keys',
      [
        {},
        [null],
        [{ type: 1, key: 'k', fingerprint: 'f' }],
        Array.from({ length: 11 }, () => ({ type: '', key: '', fingerprint: '' })),
      ],
    ],
    ['ssh_port', [0, 65_536, '22', 1.5, null]],
    ['shell_deadline', ['yesterday', '2001-01-01T00:00:00Z', 5]],
    ['shell_idle_seconds', [0, -1, 1.5, '60', 2 ** 31]],
  ])('refuses a wrong %s, and changes nothing', async (member, values) => {
    const { id } = await aJob();
    for (const value of values)
      expectProblem(await report(id, { status: 'error', [member]: value }), 422, member, {
        [member]: [expect.any(String)],
      });
    expect((await app.send('GET', `/v3/jobs/${id}`)).body).toMatchObject({ status: 'creating' });
  });

  it('takes reports that come at once, one after the other', async () => {
    const { id } = await aJob();
    const resultant_image_id = randomUUID();
    const ends = await Promise.all([
      report(id, { status: 'error', status_reason: 'it died' }),
      report(id, { status: 'success', resultant_image_id }),
      app.send('DELETE', `/v3/jobs/${randomUUID()}`),
    ]);
    // One of the ends holds; the other was refused.
    expect(new Set(ends.map(({ status }) => status))).toEqual(new Set([200, 404, 409]));
    const { status, status_reason } = (await app.send('GET', `/v3/jobs/${id}`)).body as JobView;
    expect([status, status_reason]).toEqual(ends[0]!.status === 200 ? ['error', 'it died'] : ['success', null]);
  });
});

it('a job keeps the key and the source that it started with', async () => {
  const key = await aPublicKey(app);
  const { id: imageId } = await anImage(app);
  const { id } = await aJob({ public_key_id: key, artifact_id: imageId });
  expect((await app.send('DELETE', `/v3/public-keys/${key}`)).status).toBe(204);
  expect((await app.send('DELETE', `/v3/images/${imageId}`)).status).toBe(204);
  await look();
  expect(launcher.jobs.get(id)!.spec).toMatchObject({
    public_key: expect.stringMatching(/^ssh-ed25519 /),
    source: { size: 18 },
  });
});

it('a job that cannot have an address is not begun', async () => {
  const tight = await createTestDatabase();
  const small = await startTestApp({
    databaseUrl: tight.url,
    launcher: new MemoryJobLauncher(10, { first: 1, last: 1 }),
  });
  try {
    const body = { ...aRequest(), artifact_id: (await anImage(small)).id, public_key_id: await aPublicKey(small) };
    const first = await small.send('POST', '/v3/jobs', { body });
    expectProblem(await small.send('POST', '/v3/jobs', { body }), 503, 'cannot be started now: all ports are in use');
    expect((await small.send('GET', '/v3/jobs')).body).toEqual([first.body]);
    // A job that is deleted gives its address back.
    await small.send('DELETE', `/v3/jobs/${(first.body as JobView).id}`);
    await small.nest.get(JobReconciler).pass();
    expect((await small.send('POST', '/v3/jobs', { body })).status).toBe(201);
  } finally {
    await small.close();
    await tight.drop();
  }
});

it('settings change what a job gets that does not say', async () => {
  const other = await createTestDatabase();
  const environment = {
    DEFAULT_IMS_IMAGE_SIZE: '33',
    DEFAULT_IMS_JOB_MEM_SIZE: '2',
    JOB_ENABLE_DKMS: 'no',
    DEFAULT_IMS_JOB_NAMESPACE: 'elsewhere',
    JOB_SHELL_IDLE_SECONDS: '0',
    S3_BOOT_IMAGES_BUCKET: 'other-images',
  };
  const store = new MemoryArtifactStore(['ims', 'other-images']);
  const set = await startTestApp({ databaseUrl: other.url, environment, store });
  try {
    const body = { ...aRequest(), artifact_id: (await anImage(set)).id, public_key_id: await aPublicKey(set) };
    expect((await set.send('POST', '/v3/jobs', { body })).body).toMatchObject({
      build_env_size: 33,
      job_mem_size: 2,
      require_dkms: false,
      kubernetes_namespace: 'elsewhere',
      shell_idle_seconds: null,
    });
  } finally {
    await set.close();
    await other.drop();
  }
});
