import { DataSource } from 'typeorm';
import { startTestApp, type TestApp } from '../support/app.js';
import { createTestDatabase, type TestDatabase } from '../support/database.js';
import { anImage as aLinkedImage, aPublicKey } from '../support/records.js';

/* Input that is odd but legal, and input that looks legal and is not. */

const KEY = 'ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBhF9mXk0jYpKpRk5cGkq0yqgW0aYpDk8uQyQ2WQv1pN';
const LONE = '\ud800';

let database: TestDatabase;
let app: TestApp;

beforeAll(async () => {
  database = await createTestDatabase();
  app = await startTestApp({ databaseUrl: database.url });
});
afterAll(async () => {
  await app.close();
  await database.drop();
});

/** Sends JSON text to the letter: an object of JavaScript would lose members named `__proto__`. */
const sendJson = (method: string, path: string, body: string) =>
  app.send(method, path, { body, headers: { 'Content-Type': 'application/json' } });

async function anImage(metadata = '{}'): Promise<string> {
  const { status, body } = await sendJson('POST', '/v3/images', `{"name":"odd","metadata":${metadata}}`);
  expect([status, body]).toEqual([201, expect.anything()]);
  return (body as { id: string }).id;
}

describe('tags', () => {
  const ODD = '{"constructor":"c","__proto__":"p","toString":"t","hasOwnProperty":"h","日本語 😀":"ü","":"nothing"}';

  it('may be named anything, and come back as they were sent', async () => {
    const { content } = await app.send('GET', `/v3/images/${await anImage(ODD)}`);
    const { metadata } = JSON.parse(content.toString()) as { metadata: object };
    const entries = (json: object) => new Map(Object.entries(json));
    expect(entries(metadata)).toEqual(entries(JSON.parse(ODD) as object));
  });

  it.each(['constructor', '__proto__', 'toString', '日本語'])('can be named %s by a change, too', async (key) => {
    const id = await anImage();
    const change = (operation: string) =>
      sendJson('PATCH', `/v3/images/${id}`, JSON.stringify({ metadata: { operation, key, value: 'v' } }));
    expect((await change('remove')).status).toBe(200);
    const { content } = await change('set');
    expect(content.toString()).toContain(JSON.stringify(key));
    expect((await change('remove')).body).toMatchObject({ metadata: {} });
  });

  it.each([
    { body: String.raw`{"name":"odd","metadata":{"a":"\ud800"}}`, sentence: 'valid Unicode' },
    { body: String.raw`{"name":"odd","metadata":{"\udc00":"a"}}`, sentence: 'valid Unicode' },
    { body: '{"name":"odd","metadata":{"key":"a\\u0000"}}', sentence: 'NUL' },
  ])('are refused where no database can keep them: $body', async ({ body, sentence }) => {
    const answer = await sendJson('POST', '/v3/images', body);
    expect(answer.status).toBe(422);
    expect((answer.body as { detail: string }).detail).toContain(sentence);
  });

  it('are refused likewise in a change', async () => {
    const metadata = { operation: 'set', key: 'a', value: LONE };
    const { status, body } = await app.send('PATCH', `/v3/images/${await anImage()}`, { body: { metadata } });
    expect([status, body]).toEqual([
      422,
      expect.objectContaining({ errors: { metadata: { value: ['Must be valid Unicode text.'] } } }),
    ]);
  });

  it('of half a megabyte are kept whole', async () => {
    const value = 'ü'.repeat(250_000);
    const metadata = { operation: 'set', key: 'large', value };
    const { body } = await app.send('PATCH', `/v3/images/${await anImage()}`, { body: { metadata } });
    expect((body as { metadata: { large: string } }).metadata.large === value).toBe(true);
  });
});

it.each(['constructor', '__proto__'])('an unknown member named %s is unknown', async (name) => {
  const answer = await sendJson('POST', '/v3/images', `{"name":"odd","${name}":{"prototype":1}}`);
  expect(answer.status).toBe(422);
  expect(answer.content.toString()).toContain(`"${name}":["Unknown field."]`);
});

it.each([
  '"link":{"type":"s3","path":{"constructor":1},"constructor":{}}',
  '"template_dictionary":[{"constructor":1,"key":{"constructor":1}}]',
])('a strange member is refused where it stands: %s', async (member) => {
  const body = `{"name":"r","recipe_type":"packer","linux_distribution":"sles15",${member}}`;
  const { status, body: problem } = await sendJson('POST', '/v3/recipes', body);
  expect([status, problem]).toEqual([422, expect.objectContaining({ code: 'invalid-input' })]);
});

it('a public key whose comment is no text is refused', async () => {
  const { status } = await app.send('POST', '/public-keys', { body: { name: 'k', public_key: `${KEY} ${LONE}` } });
  expect(status).toBe(422);
});

it.each(['public-keys', 'recipes', 'images'])(
  'names of %s may be of any script, and 1,024 characters long',
  async (kind) => {
    const more = {
      'public-keys': { public_key: KEY },
      recipes: { recipe_type: 'packer', linux_distribution: 'sles12' },
    };
    for (const name of ['日本語 😀', '\t\u0001\u007f', '../../etc', "'; DROP TABLE images; --", 'é'.repeat(1024)]) {
      const { status, body } = await app.send('POST', `/v3/${kind}`, { body: { name, ...more[kind as 'recipes'] } });
      expect([status, body]).toEqual([201, expect.objectContaining({ name })]);
      const found = await app.send('GET', `/v3/${kind}?name=${encodeURIComponent(name)}`);
      expect(found.body).toEqual([body]);
    }
  },
);

it('takes the whole url that a client sends to a proxy', async () => {
  for (const url of ['http://cray-ims/version', 'HTTPS://api-gw-service-nmn.local:443/apis/ims/version'])
    expect(await app.send('GET', url)).toMatchObject({ status: 200, body: { version: expect.any(String) } });
  expect(await app.send('GET', 'http://cray-ims/v3/images?limit=0')).toMatchObject({ status: 400 });
  expect((await app.send('GET', 'http://cray-ims?x')).status).toBe(404);
});

it('ignores parameters that it does not know, however often they are given', async () => {
  for (const path of ['/images', '/v2/recipes', '/v3/public-keys', '/v3/deleted/images', '/jobs'])
    expect((await app.send('GET', `${path}/?a&a=1&a[]=2&__proto__=3&constructor=4&%`)).status).toBe(200);
});

it('writes one full stop where a parameter is not understood', async () => {
  const { body } = await app.send('DELETE', `/images/${await anImage()}?cascade=perhaps`);
  expect(body).toMatchObject({
    detail: 'The query is not understood: cascade: Not a valid boolean. Nothing was changed.',
  });
});

describe('what a worker tells of its job', () => {
  it.each([
    '{"progress":{"stage":"pack","done":1,"total":null,"constructor":1}}',
    '{"progress":{"stage":"a\\u0000","done":1,"total":null}}',
    '{"packing":{"method":"delta","bytes":1,"bytes_reused":0,"bytes_new":1,"seconds":{"constructor":1}}}',
    '{"host_keys":[{"type":"\\ud800","key":"k","fingerprint":"f"}]}',
  ])('is refused where it could not be told again: %s', async (report) => {
    const [image, public_key_id] = [await aLinkedImage(app), await aPublicKey(app)];
    const body = { job_type: 'customize', artifact_id: image.id, public_key_id, image_root_archive_name: 'r' };
    const job = (await app.send('POST', '/v3/jobs', { body })).body as { id: string };
    const answer = await sendJson('PATCH', `/v3/jobs/${job.id}`, report);
    expect([answer.status, answer.body]).toEqual([422, expect.objectContaining({ code: 'invalid-input' })]);
    expect((await app.send('GET', `/v3/jobs/${job.id}`)).body).toEqual(job);
  });
});

describe('artifacts without a byte, and keys of any script', () => {
  const link = (bucket: string, key: string) => ({ type: 's3', path: `s3://${bucket}/${key}`, etag: '' });

  it('an empty manifest is none', async () => {
    const bucket = app.config.s3.bootImagesBucket;
    await app.store.put({ bucket, key: 'empty/manifest.json' }, { body: Buffer.alloc(0) });
    const body = { name: 'empty', link: link(bucket, 'empty/manifest.json') };
    const { status, body: problem } = await app.send('POST', '/v3/images', { body });
    expect([status, problem]).toEqual([422, expect.objectContaining({ detail: expect.stringContaining('manifest') })]);
  });

  it('an archive of a recipe is linked by its key, whatever that is', async () => {
    const bucket = app.config.s3.imsBucket;
    for (const key of ['recipes/日本語 😀/r+1.tgz', 'recipes/a%20b?c#d&e.tgz']) {
      await app.store.put({ bucket, key }, { body: Buffer.alloc(0) });
      const body = { name: 'r', recipe_type: 'kiwi-ng', linux_distribution: 'sles15', link: link(bucket, key) };
      const { status, body: recipe } = await app.send('POST', '/v3/recipes', { body });
      expect([status, recipe]).toEqual([201, expect.objectContaining({ link: expect.objectContaining(body.link) })]);
    }
  });
});

it('a list of ten thousand records is plain, and whole', async () => {
  await app.nest
    .get(DataSource)
    .query(
      `INSERT INTO public_keys (id, created, name, public_key) SELECT gen_random_uuid(), now(), 'many', $1 FROM generate_series(1, 10000)`,
      [KEY],
    );
  const { status, headers, body } = await app.send('GET', '/public-keys');
  const ids = (body as { id: string; name: string }[]).filter(({ name }) => name === 'many').map(({ id }) => id);
  expect([status, headers['link'], new Set(ids).size]).toEqual([200, undefined, 10_000]);
});

describe('members that mean something to JavaScript', () => {
  const NAMES = [
    'then',
    'toString',
    'valueOf',
    'hasOwnProperty',
    'toJSON',
    'length',
    'catch',
    'constructor',
    '__proto__',
  ];
  const VALUES = ['[]', '{}', '"text"', '1', 'null', '{"then":[]}'];
  const cases = NAMES.flatMap((name) => VALUES.map((value) => `${JSON.stringify(name)}:${value}`));

  it.each(cases)('are unknown as any other: %s', async (member) => {
    const answers = await Promise.all([
      sendJson('POST', '/v3/images', `{"name":"odd",${member}}`),
      sendJson('PATCH', '/v3/deleted/images', `{"operation":"undelete",${member}}`),
    ]);
    expect(answers.map(({ status }) => status)).toEqual([422, 422]);
  });

  it.each(cases)('are no fault of the server where they are nested: %s', async (member) => {
    const link = `{"path":"s3://boot-images/x","etag":"","type":"s3",${member}}`;
    const item = `{"key":"k","value":"v",${member}}`;
    const answers = await Promise.all([
      sendJson('POST', '/v3/images', `{"name":"odd","link":${link}}`),
      sendJson('POST', '/v3/recipes', `{"name":"odd","linux_distribution":"sles12","template_dictionary":[${item}]}`),
    ]);
    for (const { status } of answers) expect([201, 422]).toContain(status);
  });
});
