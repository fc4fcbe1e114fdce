import { PutObjectCommand } from '@aws-sdk/client-s3';
import type { ClientSession, Fields, Reply } from './client-session.js';
import { BUCKET, PUBLIC_KEY_FILE, Service } from './service.js';

/*
 * Every command of `cray ims`, by the requests that it makes: version 3, below the prefix of the gateway, with the header of a tenant and
 * the token of a login that nobody checks. `cray` prints the JSON of an answer, and of a failure its title and detail.
 */

const NOBODY = '00000000-0000-4000-8000-000000000000';
const TIME = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}\+00:00$/;

let service: Service;
let cray: ClientSession;

beforeAll(async () => {
  service = await Service.start();
  const headers = ['Cray-Tenant-Name', 'vcluster-blue', 'Authorization', 'Bearer eyJhbGciOiJub25lIn0.e30.'];
  cray = service.client('/apis/ims/v3', headers);
}, 60_000);
afterAll(() => service?.stop());

/** What the command prints of a failure. */
function printed({ status, reason, text }: Reply): string {
  const { title, detail } = JSON.parse(text) as Fields;
  return title && detail ? `Error: ${title}: ${detail}` : `Error received from server: ${status} ${reason}`;
}

const failing = async (method: string, path: string, body?: unknown) => printed(await cray.request(method, path, body));

const KINDS = [
  {
    kind: 'public-keys',
    noun: 'public key',
    create: { name: 'username public key', public_key: PUBLIC_KEY_FILE },
    record: {},
  },
  {
    kind: 'recipes',
    noun: 'recipe',
    create: {
      name: 'my_recipe',
      recipe_type: 'kiwi-ng',
      linux_distribution: 'sles15',
      arch: 'aarch64',
      require_dkms: false,
      template_dictionary: [
        { key: 'CSM_RELEASE_VERSION', value: '1.6.0' },
        { key: 'A', value: '' },
      ],
    },
    record: { link: null },
  },
  {
    kind: 'images',
    noun: 'image',
    create: { name: 'my_image', arch: 'x86_64', metadata: { key: 'sbps-project', value: 'true' } },
    record: { link: null, metadata: { 'sbps-project': 'true' } },
  },
];

describe.each(KINDS)('cray ims $kind', ({ kind, noun, create, record }) => {
  const ids = async (path: string) => (await cray.list(path)).map(({ id }) => id as string);
  const make = async () => (await cray.expect(201, 'POST', `/${kind}`, create))['id'] as string;

  it('create, describe, list', async () => {
    const created = await cray.expect(201, 'POST', `/${kind}`, create);
    expect(created).toMatchObject({ ...create, ...record, created: expect.stringMatching(TIME) });
    expect(await cray.expect(200, 'GET', `/${kind}/${created['id']}`)).toEqual(created);
    expect(await cray.list(`/${kind}`)).toContainEqual(created);
  });

  it('delete, deleted list, deleted describe, deleted update --operation undelete', async () => {
    const id = await make();
    const before = await cray.expect(200, 'GET', `/${kind}/${id}`);
    await cray.expect(204, 'DELETE', `/${kind}/${id}`);
    expect(await ids(`/${kind}`)).not.toContain(id);
    expect(await ids(`/deleted/${kind}`)).toContain(id);
    const deleted = await cray.expect(200, 'GET', `/deleted/${kind}/${id}`);
    expect(deleted).toEqual({ ...before, deleted: expect.stringMatching(TIME) });
    await cray.expect(204, 'PATCH', `/deleted/${kind}/${id}`, { operation: 'undelete' });
    expect(await cray.expect(200, 'GET', `/${kind}/${id}`)).toEqual(before);
    expect(await ids(`/deleted/${kind}`)).not.toContain(id);
  });

  it('deleted delete, deleteall and deleted deleteall', async () => {
    const [one, other] = [await make(), await make()];
    await cray.expect(204, 'DELETE', `/${kind}/${one}`);
    await cray.expect(204, 'DELETE', `/deleted/${kind}/${one}`);
    expect(await ids(`/deleted/${kind}`)).not.toContain(one);
    await cray.expect(204, 'DELETE', `/${kind}`);
    expect(await ids(`/${kind}`)).toEqual([]);
    expect(await ids(`/deleted/${kind}`)).toContain(other);
    await cray.expect(204, 'DELETE', `/deleted/${kind}`);
    expect(await ids(`/deleted/${kind}`)).toEqual([]);
  });

  it('names what is not there', async () => {
    expect(await failing('GET', `/${kind}/${NOBODY}`)).toMatch(`Error: Not Found: There is no ${noun} with the id`);
    expect(await failing('DELETE', `/${kind}/${NOBODY}`)).toMatch('Error: Not Found: ');
    expect(await failing('GET', `/${kind}/not-a-uuid`)).toMatch('Error: Not Found: ');
    expect(await failing('GET', `/${kind}/a/b%20c`)).toMatch('Error: Not Found: ');
    expect(await failing('PATCH', `/deleted/${kind}/${NOBODY}`, { operation: 'undelete' })).toMatch(
      'Error: Not Found: ',
    );
  });

  it('names the member that is wrong, since it prints no more than title and detail', async () => {
    expect(await failing('POST', `/${kind}`, { ...create, name: '' })).toBe(
      'Error: Unprocessable Entity: The input is not valid. name: Must not be blank.',
    );
  });

  it('deleted update without --operation sends no body', async () => {
    const id = await make();
    await cray.expect(204, 'DELETE', `/${kind}/${id}`);
    expect(await failing('PATCH', `/deleted/${kind}/${id}`)).toMatch('Error: Bad Request: The request needs a body');
  });
});

it('cray ims recipes update: --arch, --require-dkms, --template-dictionary-*, --link-*, nothing', async () => {
  const { id } = await cray.expect(201, 'POST', '/recipes', {
    name: 'r',
    recipe_type: 'packer',
    linux_distribution: 'centos7',
  });
  const update = (body?: unknown) => cray.expect(body ? 200 : 400, 'PATCH', `/recipes/${id}`, body);
  expect(await update({ arch: 'aarch64' })).toMatchObject({ arch: 'aarch64', require_dkms: true });
  expect(await update({ require_dkms: false })).toMatchObject({ arch: 'aarch64', require_dkms: false });
  const template_dictionary = [{ key: 'K', value: 'V' }];
  expect(await update({ template_dictionary })).toMatchObject({ template_dictionary });
  const { link } = await service.upload(`recipes/${id}/recipe.tgz`, 'recipe', 'application/x-tgz', 'ims');
  const sent = { type: 's3', path: link.path, etag: link.etag };
  expect(await update({ link: sent })).toMatchObject({ link: sent, template_dictionary });
  expect(await update()).toMatchObject({ status: 400, title: 'Bad Request' });
});

it('cray artifacts create, cray ims images update --link-*: an image that was made elsewhere', async () => {
  const { id } = await cray.expect(201, 'POST', '/images', { name: 'imported' });
  for (const name of ['rootfs', 'kernel', 'initrd'])
    // `cray artifacts create` puts an empty object that all may read before it uploads.
    await service.s3.client.send(
      new PutObjectCommand({ Bucket: BUCKET, Key: `${id}/${name}`, Body: Buffer.alloc(0), ACL: 'public-read' }),
    );
  const { path, etag } = await service.uploadImage(id as string);
  const body = { link: { type: 's3', path, etag } };
  const linked = await cray.expect(200, 'PATCH', `/images/${id}`, body);
  expect(linked['link']).toEqual({ path, etag, type: 's3' });
  expect(await cray.expect(200, 'PATCH', `/images/${id}`, body)).toEqual(linked);
  const other = { link: { type: 's3', path: `s3://${BUCKET}/other/manifest.json`, etag } };
  expect(await failing('PATCH', `/images/${id}`, other)).toMatch('Error: Conflict: ');
  const absent = { name: 'second', link: { type: 's3', path: `s3://${BUCKET}/absent/manifest.json`, etag: '' } };
  expect(await failing('POST', '/images', absent)).toMatch(/^Error: Unprocessable Entity: .*absent\/manifest\.json/);
});

it('cray ims images update --metadata-operation: tags are set, overwritten and removed one by one', async () => {
  const { id } = await cray.expect(201, 'POST', '/images', { name: 'tagged', metadata: { key: 'only-a-key' } });
  const change = async (metadata: Fields) =>
    (await cray.expect(200, 'PATCH', `/images/${id}`, { metadata }))['metadata'] as Fields;
  expect(await change({ operation: 'set', key: 'a', value: '1' })).toEqual({ 'only-a-key': '', a: '1' });
  expect(await change({ operation: 'set', key: 'a', value: '2' })).toEqual({ 'only-a-key': '', a: '2' });
  expect(await change({ operation: 'remove', key: 'only-a-key' })).toEqual({ a: '2' });
  expect(await change({ operation: 'remove', key: 'absent' })).toEqual({ a: '2' });
  expect(await failing('PATCH', `/images/${id}`)).toMatch('Error: Bad Request: ');
});

describe('cray ims jobs', () => {
  let artifact_id: string;
  let public_key_id: string;
  beforeAll(async () => {
    artifact_id = (await cray.expect(201, 'POST', '/images', { name: 'source' }))['id'] as string;
    await cray.expect(200, 'PATCH', `/images/${artifact_id}`, { link: await service.uploadImage(artifact_id) });
    const key = { name: 'username public key', public_key: PUBLIC_KEY_FILE };
    public_key_id = (await cray.expect(201, 'POST', '/public-keys', key))['id'] as string;
  });

  const customize = (more: Fields = {}) => ({
    job_type: 'customize',
    artifact_id,
    public_key_id,
    image_root_archive_name: 'my_customized_image',
    initrd_file_name: 'initrd',
    kernel_parameters_file_name: 'kernel-parameters',
    ...more,
  });
  const create = (more?: Fields) => cray.expect(201, 'POST', '/jobs', customize(more));

  it('create, describe, list, delete, as the procedure "Customize an Image Root" shows them', async () => {
    const job = await create();
    const { id } = job;
    expect(job).toMatchObject({
      status: 'creating',
      enable_debug: false,
      kernel_file_name: 'vmlinuz',
      artifact_id,
      build_env_size: 10,
      job_type: 'customize',
      kubernetes_service: `cray-ims-${id}-service`,
      kubernetes_job: `cray-ims-${id}-customize`,
      kubernetes_namespace: 'ims',
      kubernetes_configmap: `cray-ims-${id}-configmap`,
      image_root_archive_name: 'my_customized_image',
      initrd_file_name: 'initrd',
      created: expect.stringMatching(TIME),
      public_key_id,
      resultant_image_id: null,
      ssh_containers: [
        {
          status: 'pending',
          jail: false,
          name: 'customize',
          connection_info: {
            'cluster.local': { host: `cray-ims-${id}-service.ims.svc.cluster.local`, port: 22 },
            customer_access: { host: `${id}.ims.cmn.shasta.local`, port: 22 },
          },
        },
      ],
    });
    expect(await cray.expect(200, 'GET', `/jobs/${id}`)).toEqual(job);
    expect((await cray.list('/jobs')).map((one) => one['id'])).toContain(id);
    await cray.expect(204, 'DELETE', `/jobs/${id}`);
    expect(await failing('GET', `/jobs/${id}`)).toMatch('Error: Not Found: ');
  });

  it('create with every option', async () => {
    const options = {
      kernel_file_name: 'Image',
      enable_debug: true,
      build_env_size: 20,
      require_dkms: false,
    };
    const ssh_containers = [{ name: 'my-shell', jail: true }];
    const job = await create({ ...options, ssh_containers });
    expect(job).toMatchObject({ ...options, ssh_containers: [{ name: 'my-shell', jail: true }] });
  });

  it('create of what is not there', async () => {
    expect(await failing('POST', '/jobs', customize({ artifact_id: NOBODY }))).toMatch(/^Error: [A-Z].*artifact_id/);
    expect(await failing('POST', '/jobs', customize({ public_key_id: NOBODY }))).toMatch(
      /^Error: [A-Z].*public_key_id/,
    );
  });

  it('deleteall with --status, --job-type, --age, and without', async () => {
    const [ended, running] = [await create(), await create()].map(({ id }) => id as string);
    await cray.expect(200, 'PATCH', `/jobs/${ended}`, { status: 'error' });
    const left = async () => (await cray.list('/jobs')).map(({ id }) => id as string);
    await cray.expect(204, 'DELETE', '/jobs?status=error&job_type=customize&age=2w3d');
    expect(await left()).toEqual(expect.arrayContaining([ended, running]));
    await cray.expect(204, 'DELETE', '/jobs?status=error&job_type=create');
    expect(await left()).toContain(ended);
    await cray.expect(204, 'DELETE', '/jobs?status=error');
    expect(await left()).toContain(running);
    expect(await left()).not.toContain(ended);
    expect(await failing('DELETE', '/jobs?age=yesterday')).toMatch(/^Error: Bad Request: .*age/);
    expect(await left()).toContain(running);
    await cray.expect(204, 'DELETE', '/jobs');
    expect(await left()).toEqual([]);
  });
});

it('cray ims remote-build-nodes create, list, describe, status list, status describe, delete, deleteall', async () => {
  const at = '/remote-build-nodes';
  const xname = 'x3000c0s19b1n0';
  expect(await cray.expect(201, 'POST', at, { xname })).toEqual({ xname });
  expect(await cray.list(at)).toEqual([{ xname }]);
  expect(await cray.expect(200, 'GET', `${at}/${xname}`)).toEqual({ xname });
  const status = {
    xname,
    sshStatus: expect.any(String),
    podmanStatus: expect.any(String),
    nodeArch: expect.any(String),
    numCurrentJobs: -1,
    ableToRunJobs: false,
  };
  expect(await cray.list(`${at}/status`)).toEqual([status]);
  expect(await cray.expect(200, 'GET', `${at}/status/${xname}`)).toEqual(status);
  await cray.expect(204, 'DELETE', `${at}/${xname}`);
  expect(await failing('GET', `${at}/${xname}`)).toMatch('Error: Not Found: ');
  await cray.expect(201, 'POST', at, { xname });
  await cray.expect(204, 'DELETE', at);
  expect(await cray.list(at)).toEqual([]);
});

it('cray ims version list', async () => {
  const { version } = await service.client('/apis/ims').expect(200, 'GET', '/version');
  expect(version).toMatch(/^\d+\.\d+\.\d+/);
});
