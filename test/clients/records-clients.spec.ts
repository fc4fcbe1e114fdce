import { until } from '../support/system.js';
import { type ClientSession, type Fields, GO_RESTY } from './client-session.js';
import { PUBLIC_KEY_FILE, Service } from './service.js';

/* sat, bos, cmsdev and the barebones boot test: what each sends in its order, and every member that it reads. */

const TOKEN = ['Authorization', 'Bearer eyJhbGciOiJub25lIn0.e30.'];

let service: Service;
beforeAll(async () => {
  service = await Service.start();
}, 60_000);
afterAll(() => service?.stop());

const idOf = (record: Fields) => String(record['id']);

/** An image with artifacts, as somebody else made it. */
async function anImage(name: string, arch = 'x86_64'): Promise<string> {
  const maker = service.client('');
  const id = idOf(await maker.expect(201, 'POST', '/images', { name, arch }));
  await maker.expect(200, 'PATCH', `/images/${id}`, { link: await service.uploadImage(id) });
  return id;
}

describe('sat bootprep', () => {
  let sat: ClientSession;
  let recipeId: string;
  beforeAll(async () => {
    sat = service.client('/apis/ims/v3', TOKEN);
    const recipe = { name: 'compute', recipe_type: 'kiwi-ng', linux_distribution: 'sles15' };
    recipeId = idOf(await sat.expect(201, 'POST', '/recipes', recipe));
    const { link } = await service.upload(`recipes/${recipeId}/recipe.tgz`, 'recipe', 'application/x-tgz', 'ims');
    await sat.expect(200, 'PATCH', `/recipes/${recipeId}`, { link });
  });

  /** The one key whose text is that of the user's file, to the letter; registered where there is none. */
  async function key(): Promise<string> {
    const known = (await sat.list('/public-keys')).find(({ public_key }) => public_key === PUBLIC_KEY_FILE);
    const body = { name: 'root public key', public_key: PUBLIC_KEY_FILE };
    return idOf(known ?? (await sat.expect(201, 'POST', '/public-keys', body)));
  }

  it('builds an image from a recipe, and deletes the job of it', async () => {
    const recipes = (await sat.list('/recipes')).filter(({ name }) => name === 'compute');
    expect(recipes).toEqual([expect.objectContaining({ id: recipeId, arch: 'x86_64' })]);
    expect((await sat.list('/images')).filter(({ name }) => name === 'compute-pre-configuration')).toEqual([]);
    const first = await key();
    // Found again: nothing of its text was trimmed.
    expect(await key()).toBe(first);
    const job = await sat.expect(201, 'POST', '/jobs', {
      job_type: 'create',
      artifact_id: recipeId,
      public_key_id: first,
      image_root_archive_name: 'compute-pre-configuration',
    });
    const poll = async () => {
      const { status, resultant_image_id } = await sat.expect(200, 'GET', `/jobs/${idOf(job)}`);
      return [status, resultant_image_id];
    };
    expect(await poll()).toEqual(['creating', null]);
    const imageId = await anImage('compute-pre-configuration');
    const worker = service.client('');
    await worker.expect(200, 'PATCH', `/jobs/${idOf(job)}`, { status: 'building_image' });
    expect(await poll()).toEqual(['building_image', null]);
    await worker.expect(200, 'PATCH', `/jobs/${idOf(job)}`, { resultant_image_id: imageId });
    await worker.expect(200, 'PATCH', `/jobs/${idOf(job)}`, { status: 'success' });
    expect(await poll()).toEqual(['success', imageId]);
    await sat.expect(204, 'DELETE', `/jobs/${idOf(job)}`);
  });

  it('renames an image by a copy, and deletes the old one for good', async () => {
    const old = await anImage('old');
    expect(await sat.expect(200, 'GET', `/images/${old}`)).toMatchObject({ name: 'old', arch: 'x86_64' });
    const renamed = idOf(await sat.expect(201, 'POST', '/images', { name: 'new', arch: 'x86_64' }));
    const link = await service.uploadImage(renamed);
    await sat.expect(200, 'PATCH', `/images/${renamed}`, { link });
    await sat.expect(204, 'DELETE', `/images/${old}`);
    await sat.expect(204, 'DELETE', `/deleted/images/${old}`);
    await sat.expect(404, 'GET', `/deleted/images/${old}`);
    await until('the artifacts of the old image are gone', async () => {
      const keys = [`${old}/rootfs`, `deleted/${old}/rootfs`, `${old}/manifest.json`];
      return (await Promise.all(keys.map((one) => service.etagOf(one)))).every((etag) => etag === null);
    });
    // What a session template takes from the record.
    expect((await sat.expect(200, 'GET', `/images/${renamed}`))['link']).toEqual(link);
    expect(await service.etagOf(`${renamed}/rootfs`)).not.toBeNull();
  });

  it('tells an id that there is not from a failure', async () => {
    await sat.expect(404, 'GET', '/images/00000000-0000-4000-8000-000000000000');
    await sat.expect(404, 'GET', '/recipes/00000000-0000-4000-8000-000000000000');
  });
});

describe('bos', () => {
  let bos: ClientSession;
  beforeAll(() => {
    bos = service.client('/v3');
  });

  it('reads the architecture, and finds the id of an image in the path of its link', async () => {
    const id = await anImage('booted', 'aarch64');
    const { arch, link } = await bos.expect(200, 'GET', `/images/${id}`);
    expect(arch).toBe('aarch64');
    expect(/^s3:\/\/[^/]+\/([^/]+)\/manifest\.json$/.exec((link as { path: string }).path)?.[1]).toBe(id);
    await bos.expect(404, 'GET', '/images/deleted');
  });

  it('tags images that nodes are booted from, again and again', async () => {
    const id = await anImage('tagged');
    const metadata = { operation: 'set', key: 'sbps-project', value: 'true' };
    for (let boot = 0; boot < 2; boot++)
      expect(await bos.expect(200, 'PATCH', `/images/${id}`, { metadata })).toMatchObject({
        metadata: { 'sbps-project': 'true' },
      });
    // The agent that projects images looks through the list for the tag.
    const projected = (await bos.list('/images')).filter(
      (image) => (image['metadata'] as Record<string, string>)['sbps-project'] === 'true',
    );
    expect(projected.map(idOf)).toEqual([id]);
  });

  it('sees that an image was deleted by where its artifacts are', async () => {
    const id = await anImage('deleted');
    await bos.expect(204, 'DELETE', `/images/${id}`);
    await bos.expect(404, 'GET', `/images/${id}`);
    await until('all artifacts are below deleted/', async () => {
      const away = await Promise.all(
        ['rootfs', 'kernel', 'initrd'].map((name) => service.etagOf(`deleted/${id}/${name}`)),
      );
      return away.every(Boolean) && (await service.etagOf(`${id}/rootfs`)) === null;
    });
    await until('the record says so', async () => {
      const { link } = await bos.expect(200, 'GET', `/deleted/images/${id}`);
      return (link as { path: string }).path.startsWith(`s3://boot-images/deleted/${id}/`);
    });
  });
});

describe.each(['/v3', '/v2', ''])('cmsdev at "%s"', (version) => {
  let cmsdev: ClientSession;
  beforeAll(() => {
    cmsdev = service.client(`/apis/ims${version}`, TOKEN, GO_RESTY);
  });
  const isV3 = version === '/v3';

  /** Deletes a record as the version does, and looks at every place where it may be. */
  async function deleteAndCheck(kind: string, record: Fields): Promise<void> {
    const at = `/${kind}/${idOf(record)}`;
    const isListed = async (path: string) => (await cmsdev.list(path)).map(idOf).includes(idOf(record));
    await cmsdev.expect(204, 'DELETE', at);
    await cmsdev.expect(404, 'GET', at);
    expect(await isListed(`/${kind}`)).toBe(false);
    if (!isV3) return;
    expect(await cmsdev.expect(200, 'GET', `/deleted${at}`)).toMatchObject(record);
    expect(await isListed(`/deleted/${kind}`)).toBe(true);
    await cmsdev.expect(204, 'PATCH', `/deleted${at}`, { operation: 'undelete' });
    expect(await cmsdev.expect(200, 'GET', at)).toEqual(record);
    await cmsdev.expect(404, 'GET', `/deleted${at}`);
    await cmsdev.expect(204, 'DELETE', at);
    await cmsdev.expect(204, 'DELETE', `/deleted${at}`);
    await cmsdev.expect(404, 'GET', at);
    await cmsdev.expect(404, 'GET', `/deleted${at}`);
  }

  it('recipes', async () => {
    const template_dictionary = [
      { key: 'USS_VERSION', value: '1.1.2' },
      { key: 'CSM_VERSION', value: '1.0.0' },
    ];
    const body = {
      name: 'cmsdev',
      recipe_type: 'kiwi-ng',
      linux_distribution: 'sles15',
      require_dkms: false,
      template_dictionary,
    };
    const created = await cmsdev.expect(201, 'POST', '/recipes', body);
    expect(await cmsdev.expect(200, 'GET', `/recipes/${idOf(created)}`)).toMatchObject({ ...body, arch: 'x86_64' });
    expect((await cmsdev.list('/recipes')).map(idOf)).toContain(idOf(created));
    const change = { arch: 'aarch64', template_dictionary: [{ key: 'K', value: 'V' }] };
    const changed = await cmsdev.expect(200, 'PATCH', `/recipes/${idOf(created)}`, change);
    expect(changed).toEqual({ ...created, ...change });
    await deleteAndCheck('recipes', changed);
  });

  it('images', async () => {
    const body = { name: 'cmsdev', metadata: { key: 'name', value: 'cmsdev' } };
    const created = await cmsdev.expect(201, 'POST', '/images', body);
    expect(created).toMatchObject({ name: 'cmsdev', arch: 'x86_64', metadata: { name: 'cmsdev' }, link: null });
    const change = { arch: 'aarch64', metadata: { operation: 'set', key: 'project', value: 'sbps' } };
    const changed = await cmsdev.expect(200, 'PATCH', `/images/${idOf(created)}`, change);
    expect(changed).toEqual({ ...created, arch: 'aarch64', metadata: { name: 'cmsdev', project: 'sbps' } });
    await deleteAndCheck('images', changed);
  });

  it('public keys', async () => {
    const body = { name: 'cmsdev', public_key: PUBLIC_KEY_FILE };
    const created = await cmsdev.expect(201, 'POST', '/public-keys', body);
    expect(created).toMatchObject(body);
    await deleteAndCheck('public-keys', created);
  });

  it('jobs, health and version, which have no version in their path', async () => {
    const unversioned = service.client('/apis/ims', TOKEN, GO_RESTY);
    for (const job of await unversioned.list('/jobs')) {
      expect(idOf(job)).not.toBe('');
      expect(typeof job['build_env_size']).toBe('number');
      await unversioned.expect(200, 'GET', `/jobs/${idOf(job)}`);
    }
    for (const path of ['/healthz/live', '/healthz/ready'])
      expect(await unversioned.expect(200, 'GET', path)).toEqual({});
    expect(await unversioned.expect(200, 'GET', '/version')).toEqual({ version: expect.stringMatching(/./) });
  });
});

it('the barebones boot test reads an image without a version, and removes it with its artifacts by version 2', async () => {
  const test = service.client('/apis/ims', TOKEN);
  const id = await anImage('barebones', 'aarch64');
  const { link, arch } = await test.expect(200, 'GET', `/images/${id}`);
  expect([link, arch]).toEqual([
    { path: `s3://boot-images/${id}/manifest.json`, etag: await service.etagOf(`${id}/manifest.json`), type: 's3' },
    'aarch64',
  ]);
  await test.expect(204, 'DELETE', `/v2/images/${id}?cascade=True`);
  await until('its artifacts are gone', async () => {
    const names = ['rootfs', 'kernel', 'initrd', 'manifest.json'];
    return (await Promise.all(names.map((name) => service.etagOf(`${id}/${name}`)))).every((etag) => etag === null);
  });
});
