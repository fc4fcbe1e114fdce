import { DataSource } from 'typeorm';
import { startTestApp, type TestApp } from '../support/app.js';
import { TestDatabases } from '../support/database.js';

const KEY = 'ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBhF9mXk0jYpKpRk5cGkq0yqgW0aYpDk8uQyQ2WQv1pN k';

interface Told {
  id: string;
  name: string;
  created: string;
}

describe('what version 3 has beside the original', () => {
  let databases: TestDatabases;
  let app: TestApp;

  const list = async (path: string) => {
    const { status, body } = await app.send('GET', path);
    expect(status).toBe(200);
    return body as Told[];
  };
  const names = async (path: string) => (await list(path)).map(({ name }) => name);
  const post = (path: string, body: object, headers: Record<string, string> = {}) =>
    app.send('POST', path, { body, headers });
  const make = async (path: string, body: object) => {
    const { status, body: record } = await post(path, body);
    expect(status).toBe(201);
    return record as Told;
  };

  beforeAll(async () => {
    databases = await TestDatabases.start();
    app = await startTestApp({ databaseUrl: await databases.create() });
  });
  afterAll(async () => {
    await app.close();
    await databases.stop();
  });
  afterEach(async () => {
    for (const kind of ['jobs', 'images', 'recipes', 'public-keys']) await app.send('DELETE', `/${kind}`);
    for (const kind of ['images', 'recipes', 'public-keys']) await app.send('DELETE', `/v3/deleted/${kind}`);
  });

  describe.each(['images', 'deleted/images'])('pages of %s', (kind) => {
    beforeEach(async () => {
      for (let n = 0; n < 5; n++) await make('/v3/images', { name: `i${n}` });
      if (kind.startsWith('deleted')) await app.send('DELETE', '/v3/images');
    });

    it('go from one to the next by their Link headers, behind a gateway too', async () => {
      const seen: string[] = [];
      const pages: number[] = [];
      for (let next: string | undefined = `/apis/ims/v3/${kind}?limit=2&name_prefix=i`; next;) {
        const { headers, body } = await app.send('GET', next);
        seen.push(...(body as Told[]).map(({ name }) => name));
        pages.push((body as Told[]).length);
        next = /^<(\/apis\/ims\/v3\/.+)>; rel="next"$/.exec(String(headers['link'] ?? ''))?.[1];
      }
      expect(seen).toEqual(['i0', 'i1', 'i2', 'i3', 'i4']);
      expect(pages).toEqual([2, 2, 1]);
    });

    it('have no Link where nothing follows', async () => {
      const { headers } = await app.send('GET', `/v3/${kind}?limit=5`);
      expect(headers['link']).toBeUndefined();
    });

    it('go on behind a record that is gone by now', async () => {
      const { headers, body } = await app.send('GET', `/v3/${kind}?limit=2`);
      await app.send('DELETE', `/v3/${kind}/${(body as Told[])[1]!.id}`);
      const next = /<(.+)>/.exec(String(headers['link']))![1]!;
      expect(await names(next)).toEqual(['i2', 'i3']);
    });
  });

  it.each([
    'limit=0',
    'limit=x',
    'limit=10001',
    'after=x',
    'created_after=yesterday',
    'arch=arm64',
    'metadata_value=x',
  ])('refuses a list with ?%s', async (query) => {
    const { status, body } = await app.send('GET', `/v3/images?${query}`);
    expect(status).toBe(400);
    expect(body).toMatchObject({ code: 'bad-query', detail: expect.stringContaining(query.split('=')[0]!) });
  });

  it('leaves lists of the original as they are', async () => {
    await make('/v3/images', { name: 'a' });
    await make('/v3/images', { name: 'b' });
    for (const version of ['', '/v2']) {
      const { headers, body } = await app.send('GET', `${version}/images?limit=1&name=a`);
      expect(body).toHaveLength(2);
      expect([headers['link'], headers['etag']]).toEqual([undefined, undefined]);
    }
  });

  describe('filters', () => {
    const long = '𝔫'.repeat(500);
    beforeEach(async () => {
      await make('/v3/images', { name: 'compute_1', arch: 'aarch64', metadata: { a: 'x', b: 'y' } });
      await make('/v3/images', { name: 'compute%2', metadata: { a: 'z' } });
      await make('/v3/images', { name: `${long}1` });
      await make('/v3/images', { name: `${long}2` });
    });

    it.each([
      ['name=compute_1', ['compute_1']],
      ['name=Compute_1', []],
      [`name=${encodeURIComponent(long)}1`, [`${long}1`]],
      ['name_prefix=compute', ['compute_1', 'compute%2']],
      ['name_prefix=compute%25', ['compute%2']],
      ['name_prefix=compute_', ['compute_1']],
      [`name_prefix=${encodeURIComponent(long)}`, [`${long}1`, `${long}2`]],
      ['arch=aarch64', ['compute_1']],
      ['metadata_key=a', ['compute_1', 'compute%2']],
      ['metadata_key=a&metadata_value=z', ['compute%2']],
      ['metadata_key=a&metadata_value=z&arch=aarch64', []],
      ['unknown=1&name=compute_1', ['compute_1']],
    ])('?%s', async (query, found) => expect(await names(`/v3/images?${query}`)).toEqual(found));

    it('by time of creation, with all digits, and with a plus that was not escaped', async () => {
      const [first, second, third] = await list('/v3/images');
      const after = encodeURIComponent(first!.created);
      const before = encodeURIComponent(third!.created);
      expect(await names(`/v3/images?created_after=${after}&created_before=${before}`)).toEqual([second!.name]);
      expect(await list(`/v3/images?created_after=${third!.created}`)).toHaveLength(1);
      expect(await names('/v3/images?created_before=2018-11-21T00:00')).toEqual([]);
    });

    it('of public keys and recipes', async () => {
      await make('/v3/public-keys', { name: 'k1', public_key: KEY });
      await make('/v3/public-keys', { name: 'k2', public_key: KEY });
      expect(await names('/v3/public-keys?name=k2')).toEqual(['k2']);
      const recipe = { name: 'r', recipe_type: 'kiwi-ng', linux_distribution: 'sles15' };
      await make('/v3/recipes', { ...recipe, arch: 'aarch64' });
      await make('/v3/recipes', recipe);
      expect(await list('/v3/recipes?arch=aarch64')).toHaveLength(1);
    });

    it('use indexes', async () => {
      const database = await new DataSource({ type: 'postgres', url: app.config.database.url! }).initialize();
      await database.query(
        `INSERT INTO images (id, created, name, arch, metadata)
         SELECT gen_random_uuid(), now() - n * interval '1 s', 'n' || n, 'x86_64', jsonb_build_object('k', n::text)
         FROM generate_series(1, 5000) n`,
      );
      await database.query('VACUUM ANALYZE images');
      const plan = async (condition: string) => {
        const rows: Record<string, string>[] = await database.query(
          `EXPLAIN SELECT * FROM images t WHERE deleted IS NULL AND ${condition} ORDER BY created, id LIMIT 10`,
        );
        return rows.map((row) => row['QUERY PLAN']).join('\n');
      };
      expect(await plan(`left(t.name, 128) = 'n7'`)).toContain('images_name');
      expect(await plan(`left(t.name, 128) LIKE 'n77%'`)).toContain('images_name');
      expect(await plan(`t.metadata @> '{"k":"7"}'`)).toContain('images_metadata');
      expect(await plan(`t.metadata ? 'other'`)).toContain('images_metadata');
      expect(await plan(`t.arch = 'aarch64'`)).toContain('images_arch');
      expect(await plan(`(t.created, t.id) > (now() - interval '1 minute', '${'0'.repeat(32)}')`)).toContain(
        'images_created',
      );
      await database.destroy();
    });
  });

  describe('If-None-Match', () => {
    it('saves a client what it has, until that changes', async () => {
      const { id } = await make('/v3/images', { name: 'a' });
      for (const path of [`/v3/images/${id}`, '/v3/images']) {
        const { headers } = await app.send('GET', path);
        const known = { headers: { 'If-None-Match': `"x", W/${headers['etag']}` } };
        const again = await app.send('GET', path, known);
        expect([again.status, again.content.length, again.headers['etag']]).toEqual([304, 0, headers['etag']]);
        await app.send('PATCH', `/v3/images/${id}`, {
          body: { metadata: { operation: 'set', key: path, value: 'changed' } },
        });
        expect((await app.send('GET', path, known)).status).toBe(200);
      }
    });

    it('says nothing of errors', async () => {
      const { status, headers } = await app.send('GET', '/v3/images/x', { headers: { 'If-None-Match': '*' } });
      expect([status, headers['etag']]).toEqual([404, undefined]);
    });
  });

  describe('dry_run', () => {
    it.each(['/v3/images', '/v2/images', '/images'])(
      'of DELETE %s tells of what would go, and deletes nothing',
      async (path) => {
        const { id } = await make('/v3/images', { name: 'a' });
        await make('/v3/images', { name: 'b' });
        const one = await app.send('DELETE', `${path}/${id}?dry_run=true`);
        expect([one.status, one.body]).toMatchObject([200, { id, name: 'a' }]);
        const all = await app.send('DELETE', `${path}?dry_run=yes`);
        expect([all.status, all.body]).toMatchObject([200, [{ name: 'a' }, { name: 'b' }]]);
        expect(await list('/v3/images')).toHaveLength(2);
        expect((await app.send('DELETE', `${path}/${id}?dry_run=false`)).status).toBe(204);
      },
    );

    it.each(['dry_run=perhaps', 'dry_run=', 'dry_run=true&dry_run=false'])('never guesses: ?%s', async (query) => {
      const { id } = await make('/v3/images', { name: 'a' });
      expect((await app.send('DELETE', `/v3/images/${id}?${query}`)).status).toBe(400);
      expect(await list('/v3/images')).toHaveLength(1);
    });

    it('of what is not there is 404', async () => {
      const id = '00000000-0000-4000-8000-000000000000';
      for (const kind of ['images', 'recipes', 'public-keys', 'jobs', 'deleted/images', 'deleted/public-keys'])
        expect((await app.send('DELETE', `/v3/${kind}/${id}?dry_run=true`)).status).toBe(404);
    });

    it('of deleted records keeps them', async () => {
      const { id } = await make('/v3/public-keys', { name: 'a', public_key: KEY });
      await app.send('DELETE', `/v3/public-keys/${id}`);
      const { body } = await app.send('DELETE', `/v3/deleted/public-keys?dry_run=true`);
      expect(body).toMatchObject([{ id, deleted: expect.any(String) as string }]);
      expect(await list('/v3/deleted/public-keys')).toHaveLength(1);
    });
  });

  describe('jobs', () => {
    let request: Record<string, unknown>;
    beforeEach(async () => {
      const put = (key: string, body: string) =>
        app.store.put({ bucket: 'boot-images', key }, { body: Buffer.from(body) });
      await put('i/rootfs', 'rootfs');
      const link = { path: 's3://boot-images/i/rootfs', etag: '', type: 's3' };
      const artifacts = [{ type: 'application/vnd.cray.image.rootfs.squashfs', link }];
      await put('i/manifest.json', JSON.stringify({ version: '1.0', artifacts }));
      const image = await make('/v3/images', {
        name: 'i',
        link: { path: 's3://boot-images/i/manifest.json', type: 's3' },
      });
      const key = await make('/v3/public-keys', { name: 'k', public_key: KEY });
      request = {
        job_type: 'customize',
        artifact_id: image.id,
        public_key_id: key.id,
        image_root_archive_name: 'made',
      };
    });

    it('are planned by a dry run, and not started', async () => {
      const { status, body } = await post('/v3/jobs?dry_run=true', request);
      expect([status, body]).toMatchObject([200, { status: 'creating', kernel_file_name: 'vmlinuz' }]);
      expect(await list('/v3/jobs')).toEqual([]);
      expect((await post('/v3/jobs?dry_run=true', { ...request, artifact_id: request['public_key_id'] })).status).toBe(
        400,
      );
    });

    it('are paged and filtered', async () => {
      const ids: string[] = [];
      for (const name of ['a', 'b', 'c']) {
        const job = await make('/v3/jobs', { ...request, image_root_archive_name: name });
        ids.push(job.id);
      }
      await app.send('PATCH', `/v3/jobs/${ids[1]}`, { body: { status: 'error' } });
      const found = async (query: string) => (await list(`/v3/jobs?${query}`)).map(({ id }) => id);
      expect(await found('status=error')).toEqual([ids[1]]);
      expect(await found('status=ERROR&status=creating')).toEqual(ids);
      expect(await found('job_type=create')).toEqual([]);
      expect(await found('name=c')).toEqual([ids[2]]);
      expect(await found('arch=x86_64&limit=2')).toEqual(ids.slice(0, 2));
      expect((await app.send('GET', '/v3/jobs?limit=2')).headers['link']).toMatch(/rel="next"/);
      expect((await app.send('GET', '/v3/jobs?status=done')).status).toBe(400);
      expect((await app.send('DELETE', `/v3/jobs?status=error&dry_run=true`)).body).toMatchObject([{ id: ids[1] }]);
      expect(await list('/jobs')).toHaveLength(3);
    });

    it('are started once under one Idempotency-Key', async () => {
      const headers = { 'Idempotency-Key': 'start-1' };
      const first = await post('/v3/jobs', request, headers);
      const again = await post('/v3/jobs', request, headers);
      expect([first.status, again.status]).toEqual([201, 201]);
      expect(again.body).toEqual(first.body);
      expect(again.headers['idempotency-replayed']).toBe('true');
      expect(await list('/v3/jobs')).toHaveLength(1);
    });
  });

  describe('Idempotency-Key', () => {
    const bodies: Record<string, object> = {
      'public-keys': { name: 'k', public_key: KEY },
      recipes: { name: 'r', recipe_type: 'kiwi-ng', linux_distribution: 'sles15' },
      images: { name: 'i' },
    };

    it.each(Object.keys(bodies))('makes %s once, however often and at once they are asked for', async (kind) => {
      const headers = { 'Idempotency-Key': 'a key of mine'.replaceAll(' ', '-') };
      const answers = await Promise.all(Array.from({ length: 8 }, () => post(`/v3/${kind}`, bodies[kind]!, headers)));
      const made = answers.filter(({ status }) => status === 201);
      expect(made.length).toBeGreaterThan(0);
      expect(answers.every(({ status }) => status === 201 || status === 409)).toBe(true);
      expect(new Set(made.map(({ content }) => content.toString())).size).toBe(1);
      expect(await list(`/v3/${kind}`)).toHaveLength(1);
      const late = await post(`/v3/${kind}/`, bodies[kind]!, headers);
      expect(late.body).toEqual(made[0]!.body);
    });

    it('is for one request', async () => {
      const headers = { 'Idempotency-Key': 'one' };
      await post('/v3/images', { name: 'a' }, headers);
      const { status, body } = await post('/v3/images', { name: 'b' }, headers);
      expect([status, body]).toMatchObject([422, { code: 'idempotency-key-reused' }]);
    });

    it('can be used again where the request was refused', async () => {
      const headers = { 'Idempotency-Key': 'two' };
      expect((await post('/v3/images', { name: '' }, headers)).status).toBe(422);
      expect((await post('/v3/images', { name: 'a' }, headers)).status).toBe(201);
    });

    it.each(['', 'a b', 'ü', 'x'.repeat(256)])('must be visible ASCII: %j', async (key) => {
      const { status, body } = await post('/v3/images', { name: 'a' }, { 'Idempotency-Key': key });
      expect([status, body]).toMatchObject([400, { code: 'bad-idempotency-key' }]);
      expect(await list('/v3/images')).toEqual([]);
    });

    it.each(Object.keys(bodies))('makes %s once where a server died before it could answer', async (kind) => {
      const headers = { 'Idempotency-Key': 'died' };
      const first = await post(`/v3/${kind}`, bodies[kind]!, headers);
      const database = await new DataSource({ type: 'postgres', url: app.config.database.url! }).initialize();
      const forget = (lease: string) =>
        database.query(
          `UPDATE idempotency_keys SET answer = NULL, lease_until = now() + '${lease}' WHERE key = 'died'`,
        );
      await forget('1 minute');
      expect((await post(`/v3/${kind}`, bodies[kind]!, headers)).body).toMatchObject({
        status: 409,
        code: 'idempotency-key-in-use',
      });
      await forget('-1 second');
      const again = await post(`/v3/${kind}`, bodies[kind]!, headers);
      await database.destroy();
      expect([again.status, again.body]).toEqual([201, first.body]);
      expect(await list(`/v3/${kind}`)).toHaveLength(1);
    });
  });
});
