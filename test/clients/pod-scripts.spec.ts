import { ARTIFACT_TYPE } from '../../src/protocol/image-manifest.js';
import { type ClientSession, type Fields, PYTHON_REQUESTS, pythonJson } from './client-session.js';
import { BUCKET, PUBLIC_KEY_FILE, Service } from './service.js';

/*
 * ims-python-helper, which the containers of the original's jobs run and sites script with, and ims-load-artifacts, which installers run:
 * routes without a version, behind the gateway with a token or inside of the mesh without one.
 */

let service: Service;
beforeAll(async () => {
  service = await Service.start();
}, 60_000);
afterAll(() => service?.stop());

const HELPER = ['User-Agent', 'ims-python-helper/2.14.0', 'Authorization', 'Bearer eyJhbGciOiJub25lIn0.e30.'];

/** The helper is a session of `requests` with a name of its own. */
const helperLibrary = {
  ...PYTHON_REQUESTS,
  headers: (host: string, more: readonly string[], body: string | null, method: string) => {
    const [, agent, ...rest] = more;
    const headers = PYTHON_REQUESTS.headers(host, rest, body, method);
    return headers.map((value, index) => (headers[index - 1] === 'User-Agent' ? agent! : value));
  },
};

it('writes JSON as json.dumps does', () => {
  expect(pythonJson({ name: 'é😀"', link: null, list: [1, true, {}] })).toBe(
    '{"name": "\\u00e9\\ud83d\\ude00\\"", "link": null, "list": [1, true, {}]}',
  );
});

describe('ims-python-helper in the containers of a job', () => {
  let helper: ClientSession;
  let jobId: string;

  beforeAll(async () => {
    helper = service.client('/apis/ims', HELPER, helperLibrary);
    const { id } = await helper.expect(201, 'POST', '/images', { name: 'source', arch: 'x86_64' });
    await helper.expect(200, 'PATCH', `/images/${id}`, { link: await service.uploadImage(String(id)) });
    const key = await helper.expect(201, 'POST', '/public-keys', { name: 'k', public_key: PUBLIC_KEY_FILE });
    const job = await helper.expect(201, 'POST', '/jobs', {
      job_type: 'customize',
      artifact_id: id,
      public_key_id: key['id'],
      image_root_archive_name: 'result',
    });
    jobId = String(job['id']);
  });

  it('set_job_status: each status of a job, one after the other', async () => {
    for (const status of ['fetching_image', 'waiting_on_user', 'packaging_artifacts'])
      expect(await helper.expect(200, 'PATCH', `/jobs/${jobId}`, { status })).toMatchObject({ id: jobId, status });
  });

  it('set_job_status: any text is passed on; what is no status is answered with JSON before it is a failure', async () => {
    const problem = await helper.expect(422, 'PATCH', `/jobs/${jobId}`, { status: 'nearly done' });
    expect(problem).toMatchObject({ title: 'Unprocessable Entity', detail: expect.stringContaining('status') });
    expect((await helper.expect(200, 'GET', `/jobs/${jobId}`))['status']).toBe('packaging_artifacts');
  });

  it('image upload_artifacts NAME JOB: record, artifacts, manifest, link, job', async () => {
    const image = await helper.expect(201, 'POST', '/images', { name: 'result', arch: 'aarch64' });
    const id = String(image['id']);
    expect(image).toMatchObject({ name: 'result', arch: 'aarch64', link: null, metadata: {} });
    const link = await service.uploadImage(id);
    const linked = await helper.expect(200, 'PATCH', `/images/${id}`, { link });
    expect(linked).toEqual({ ...image, link });
    // What it prints is the whole record of the job.
    const job = await helper.expect(200, 'PATCH', `/jobs/${jobId}`, { resultant_image_id: id });
    expect(job).toMatchObject({ id: jobId, resultant_image_id: id, status: 'packaging_artifacts' });
    expect(await helper.expect(200, 'PATCH', `/jobs/${jobId}`, { status: 'success' })).toMatchObject({
      status: 'success',
      resultant_image_id: id,
    });
  });

  it('is told in JSON that a record is gone', async () => {
    const gone = '/00000000-0000-4000-8000-000000000000';
    for (const [path, body] of [
      [`/jobs${gone}`, { status: 'error' }],
      [`/images${gone}`, { link: { path: 's3://boot-images/x/manifest.json', etag: 'e', type: 's3' } }],
    ] as const)
      expect(await helper.expect(404, 'PATCH', path, body)).toMatchObject({ title: 'Not Found' });
  });

  it('cleans up an image whose upload failed: the record goes for good', async () => {
    const { id } = await helper.expect(201, 'POST', '/images', { name: 'half', arch: 'x86_64' });
    await service.upload(`${id}/rootfs`, 'half', ARTIFACT_TYPE.rootfs);
    await helper.expect(204, 'DELETE', `/images/${id}`);
    await helper.expect(404, 'GET', `/images/${id}`);
    expect(await service.client('/apis/ims/v3').list('/deleted/images')).toEqual([]);
    // It removes what it uploaded itself, since no record led to it.
    expect(await service.etagOf(`${id}/rootfs`)).not.toBeNull();
  });
});

describe('ims-load-artifacts', () => {
  let loader: ClientSession;
  beforeAll(() => {
    loader = service.client('');
  });

  it('waits until the service is ready', async () => {
    expect(await loader.expect(200, 'GET', '/healthz/ready')).toEqual({});
  });

  it('finds an image of the same name and content, and writes nothing', async () => {
    const created = await loader.expect(201, 'POST', '/images', { name: 'installed', arch: 'x86_64' });
    const link = await service.uploadImage(String(created['id']));
    await loader.expect(200, 'PATCH', `/images/${created['id']}`, { link });
    const [known] = (await loader.list('/images')).filter(({ name }) => name === 'installed');
    expect(known).toMatchObject({ id: created['id'], link });
    // It compares the digests that the manifest tells.
    const { path } = known!['link'] as { path: string };
    expect(await service.etagOf(path.replace(`s3://${BUCKET}/`, ''))).toBe(link.etag);
  });

  it('takes up an image of the same name that has no link yet', async () => {
    const { id } = await loader.expect(201, 'POST', '/images', { name: 'begun' });
    const begun = (await loader.list('/images')).filter(({ name, link }) => name === 'begun' && link === null);
    expect(begun.map((image) => image['id'])).toEqual([id]);
    const body = { link: await service.uploadImage(String(id)) };
    expect(await loader.expect(200, 'PATCH', `/images/${id}`, body)).toMatchObject(body);
  });

  it('recipe_upload: list, record, archive, link; every recipe has a link and a dictionary that can be walked', async () => {
    const recipe = { recipe_type: 'kiwi-ng', linux_distribution: 'sles15', name: 'cray-shasta-compute-sles15' };
    // An empty dictionary and a `require_dkms` that is false are left out by the helper.
    const { id } = await loader.expect(201, 'POST', '/recipes', recipe);
    const { link } = await service.upload(`recipes/${id}/recipe.tar.gz`, 'recipe', 'application/x-tgz', 'ims');
    await loader.expect(200, 'PATCH', `/recipes/${id}`, { link });
    const known = await loader.list('/recipes');
    expect(known.find((one) => one['id'] === id)).toMatchObject({ link, template_dictionary: [], require_dkms: true });
    for (const one of known) {
      expect(one).toHaveProperty('link');
      expect(Array.isArray(one['template_dictionary'])).toBe(true);
    }
    // The dictionary of an existing recipe is sent as an object: refused as by the original, with a sentence.
    const problem = await loader.expect(422, 'PATCH', `/recipes/${id}`, { template_dictionary: { K: 'V' } });
    expect(problem['detail']).toContain('template_dictionary');
  });

  it('makes a recipe of the same name again on the next run, which is allowed', async () => {
    const recipe = { recipe_type: 'kiwi-ng', linux_distribution: 'sles15', name: 'again', arch: 'x86_64' };
    const ids: Fields[] = [];
    for (let run = 0; run < 2; run++) ids.push(await loader.expect(201, 'POST', '/recipes', recipe));
    expect(ids[0]!['id']).not.toBe(ids[1]!['id']);
  });
});
