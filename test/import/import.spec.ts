import { execFile } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { promisify } from 'node:util';
import { linkPath } from '../../src/protocol/artifact-link.js';
import { startTestApp, type TestApp } from '../support/app.js';
import { DIST } from '../support/child.js';
import { TestDatabases } from '../support/database.js';
import { MemoryArtifactStore } from '../support/memory-artifact-store.js';

const run = promisify(execFile);
const KEY = 'ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBhF9mXk0jYpKpRk5cGkq0yqgW0aYpDk8uQyQ2WQv1pN k\n';
const id = (digit: number) => `${String(digit).repeat(8)}-1111-4111-8111-111111111111`;

const publicKey = { id: id(1), created: '2018-11-21T17:19:07.830001+00:00', name: 'k', public_key: KEY };
const badKey = { id: id(2), created: '2018-11-21T17:19:07.830000+00:00', name: 'bad', public_key: 'b' };
const recipe = {
  id: id(3),
  created: '2019-01-02T03:04:05.000006+00:00',
  name: 'r',
  link: { path: 's3://ims/recipes/r/recipe.tar.gz', etag: 'e', type: 's3' },
  recipe_type: 'kiwi-ng',
  linux_distribution: 'sles15',
  arch: 'aarch64',
  require_dkms: false,
  template_dictionary: [{ key: 'A', value: 'b' }],
};
const image = {
  id: id(4),
  created: '2020-01-01T00:00:00.123456+00:00',
  name: 'i',
  link: { path: 's3://boot-images/i/manifest.json', etag: 'm', type: 's3' },
  arch: 'x86_64',
  metadata: { 'sbps-project': 'true', key: 'k' },
};
/** As old versions of the original wrote it, with a member of a version to come. */
const oldImage = { id: id(5), created: '2020-01-01T00:00:00', name: 'old', future_field: 1 };
const sameLink = { ...image, id: id(6), name: 'same link' };
const deletedImage = {
  ...image,
  id: id(7),
  name: 'gone',
  link: { path: `s3://boot-images/deleted/${id(7)}/deleted_manifest.json`, etag: '', type: 's3' },
  deleted: '2024-05-06T07:08:09.101112+00:00',
};
const job = {
  id: id(8),
  created: '2020-01-01T00:00:00',
  job_type: 'create',
  artifact_id: id(3),
  public_key_id: id(1),
  image_root_archive_name: 'n',
  kernel_file_name: null,
  kubernetes_job: null,
  status: 'success',
  resultant_image_id: id(4),
};
const runningJob = { ...job, id: id(9), status: 'building_image' };

const FILES: Record<string, unknown> = {
  'v2_public_keys.json': [publicKey, badKey],
  'v2.2_recipes.json': [recipe],
  'v2_images.json': [{ ...oldImage, id: id(0) }],
  'v2.1_images.json': [image, oldImage, sameLink, { ...oldImage, id: 'x' }, { ...oldImage, created: 'today' }],
  'v2.4_jobs.json': [job, runningJob],
  'v3_2.1_deleted_images.json': [deletedImage],
  'v2.0_remote_build_nodes.json': [{ xname: 'x3000c0s1b0n0' }, { xname: 'root@evil' }],
  'notes.json': 'not a data file',
};

const REPORT = `public keys (v2_public_keys.json): 1 imported, 0 here already, 1 skipped
  skipped ${id(2)} (bad): public_key: Must be an OpenSSH public key, as ssh-ed25519 AAAA… name: send the file that ends in .pub.
recipes (v2.2_recipes.json): 1 imported, 0 here already, 0 skipped
images (v2.1_images.json): 2 imported, 0 here already, 3 skipped
  skipped ${id(6)} (same link): another record links to s3://boot-images/i/manifest.json already
  skipped x (old): id: Not a valid UUID.
  skipped ${id(5)} (old): created: Not a valid time.
deleted images (v3_2.1_deleted_images.json): 1 imported, 0 here already, 0 skipped
jobs (v2.4_jobs.json): 1 imported, 0 here already, 1 skipped
  skipped ${id(9)} (n): it has not ended (building_image): end it in the original, or import again when it has
remote build nodes (v2.0_remote_build_nodes.json): 1 imported, 0 here already, 1 skipped`;

describe('npm run import', () => {
  let databases: TestDatabases;
  let directory: string;
  beforeAll(async () => {
    databases = await TestDatabases.start();
    directory = await mkdtemp(path.join(tmpdir(), 'ims-import-'));
    for (const [name, records] of Object.entries(FILES))
      await writeFile(path.join(directory, name), JSON.stringify(records));
  });
  afterAll(async () => {
    await databases.stop();
    await rm(directory, { recursive: true, force: true });
  });

  const importInto = async (databaseUrl: string, ...args: string[]) =>
    run(process.execPath, ['--no-warnings', path.join(DIST, 'src/import/main.js'), ...args], {
      env: { PATH: process.env['PATH'], DATABASE_URL: databaseUrl },
    }).then(
      ({ stdout }) => ({ code: 0, text: stdout }),
      (error: { code: number; stderr: string }) => ({ code: error.code, text: error.stderr }),
    );

  describe('from data files', () => {
    let url: string;
    let app: TestApp;
    const store = new MemoryArtifactStore(['ims', 'boot-images']);
    const get = async (what: string) => (await app.send('GET', `/v3/${what}`)).body;

    beforeAll(async () => {
      url = await databases.create();
      app = await startTestApp({ databaseUrl: url, store });
    });
    afterAll(() => app.close());

    it('only says what it would do in a dry run', async () => {
      const { code, text } = await importInto(url, '--from', directory, '--dry-run');
      expect(code).toBe(0);
      expect(text).toContain(REPORT);
      expect(await get('images')).toEqual([]);
    });

    it('takes records over and says what it skipped, and why', async () => {
      const { code, text } = await importInto(url, '--from', directory);
      expect(text).toContain(REPORT);
      expect(text).toContain('v2_images.json was not read: v2.1_images.json is newer');
      expect(code).toBe(0);
    });

    it('keeps ids, times and all members', async () => {
      expect(await get('public-keys')).toEqual([publicKey]);
      expect(await get('recipes')).toEqual([recipe]);
      expect(await get(`images/${id(4)}`)).toEqual({ ...image, job_id: null, recipe: null });
      expect(await get(`images/${id(5)}`)).toMatchObject({ created: '2020-01-01T00:00:00.000000+00:00', metadata: {} });
      expect(await get('deleted/images')).toEqual([{ ...deletedImage, job_id: null, recipe: null }]);
      expect(await get('jobs')).toMatchObject([
        { id: id(8), status: 'success', kernel_file_name: 'vmlinuz', kubernetes_job: `cray-ims-${id(8)}-create` },
      ]);
      expect(await get('remote-build-nodes')).toEqual([{ xname: 'x3000c0s1b0n0' }]);
    });

    it('changes nothing when it is repeated', async () => {
      await app.send('DELETE', `/v3/public-keys/${id(1)}`);
      const { text } = await importInto(url, '--from', directory);
      expect(text).toMatch(/^public keys .*: 0 imported, 1 here already, 1 skipped$/m);
      expect(text).toMatch(/^images .*: 0 imported, 2 here already, 3 skipped$/m);
      expect(await get('public-keys')).toEqual([]);
    });

    it('brings back what the original has deleted', async () => {
      const put = (key: string, body: string) => store.put({ bucket: 'boot-images', key }, { body: Buffer.from(body) });
      await put('deleted/g/rootfs', 'rootfs');
      const { etag } = await put('deleted/g/manifest.json', '{}');
      const artifact = (type: string, key: string) => ({
        type: `application/vnd.cray.image.${type}`,
        link: { path: linkPath({ bucket: 'boot-images', key }), etag: '', type: 's3' },
      });
      const artifacts = [
        artifact('rootfs.squashfs', 'deleted/g/rootfs'),
        artifact('manifest', 'deleted/g/manifest.json'),
      ];
      await put(`deleted/${id(7)}/deleted_manifest.json`, JSON.stringify({ version: '1.0', artifacts }));
      const { status } = await app.send('PATCH', `/v3/deleted/images/${id(7)}`, { body: { operation: 'undelete' } });
      expect(status).toBe(204);
      expect(await get(`images/${id(7)}`)).toMatchObject({
        link: { path: 's3://boot-images/g/manifest.json', etag, type: 's3' },
      });
      await expect(store.head({ bucket: 'boot-images', key: 'g/rootfs' })).resolves.toMatchObject({ size: 6 });
      await expect(store.head({ bucket: 'boot-images', key: 'deleted/g/rootfs' })).rejects.toThrow('no artifact');
    });

    it('lets imported jobs be deleted', async () => {
      expect((await app.send('DELETE', `/v3/jobs/${id(8)}`)).status).toBe(204);
      expect(await get('jobs')).toEqual([]);
    });
  });

  describe('from the API of a running original', () => {
    let original: Server;
    let origin: string;
    const seen: string[] = [];
    const answers: Record<string, unknown> = {
      '/apis/ims/v3/public-keys': [publicKey],
      '/apis/ims/v3/recipes': [],
      '/apis/ims/v3/images': [image],
      '/apis/ims/v3/jobs': [],
      '/apis/ims/v3/deleted/public-keys': [],
      '/apis/ims/v3/deleted/recipes': [],
      '/apis/ims/v3/deleted/images': [deletedImage],
    };

    beforeAll(async () => {
      original = createServer((request, response) => {
        seen.push(`${request.method} ${request.headers.authorization}`);
        const answer = answers[request.url!];
        response
          .writeHead(answer ? 200 : 404, { 'content-type': 'application/json' })
          .end(JSON.stringify(answer ?? {}));
      });
      await new Promise<void>((resolve) => original.listen(0, '127.0.0.1', resolve));
      origin = `http://127.0.0.1:${(original.address() as AddressInfo).port}`;
    });
    afterAll(() => original.close());

    it('reads every list with the token', async () => {
      const url = await databases.create();
      const tokenFile = path.join(directory, 'token');
      await writeFile(tokenFile, 'secret-token\n');
      const { code, text } = await importInto(url, '--from', `${origin}/apis/ims/`, '--token-file', tokenFile);
      expect(text).toContain('images (/v3/images): 1 imported, 0 here already, 0 skipped');
      expect(text).toContain('deleted images (/v3/deleted/images): 1 imported');
      expect(text).toContain('/v3/remote-build-nodes was not read: this version of the original has no such list');
      expect(new Set(seen)).toEqual(new Set(['GET Bearer secret-token']));
      expect(code).toBe(0);
    });

    it.each([
      ['where there is no such service', () => `${origin}/elsewhere`, /no Image Management Service at this url/],
      ['where nobody listens', () => 'http://127.0.0.1:1', /\/v3\/public-keys of the original cannot be read/],
      ['a directory that is not there', () => '/nowhere', /\/nowhere cannot be read \(ENOENT\)/],
      ['a directory without data files', () => tmpdir(), /holds no data file of the original/],
    ])('says what is wrong with %s', async (_what, from, why) => {
      const { code, text } = await importInto(await databases.create(), '--from', from());
      expect(text).toMatch(why);
      expect(code).toBe(1);
    });
  });

  it('says how it is used', async () => {
    const { code, text } = await importInto('', '--help');
    expect(text).toContain('npm run import -- --from DIR|URL');
    expect(code).toBe(2);
  });

  it('changes nothing where a file is broken', async () => {
    const broken = await mkdtemp(path.join(tmpdir(), 'ims-import-'));
    await writeFile(path.join(broken, 'v2_public_keys.json'), JSON.stringify([publicKey]));
    await writeFile(path.join(broken, 'v2.1_images.json'), '[{');
    const { code, text } = await importInto(await databases.create(), '--from', broken);
    await rm(broken, { recursive: true });
    expect(text).toMatch(/^v2\.1_images\.json is not JSON/);
    expect(code).toBe(1);
  });
});
