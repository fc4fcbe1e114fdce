import { VERSION_NEUTRAL } from '@nestjs/common';
import { METHOD_METADATA, VERSION_METADATA } from '@nestjs/common/constants.js';
import { ModulesContainer } from '@nestjs/core';
import { startTestApp, type TestApp } from '../support/app.js';
import { createTestDatabase, type TestDatabase } from '../support/database.js';

/* Root is version 2, by construction: no method of a controller serves the one without the other. */

const KEY = 'ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBhF9mXk0jYpKpRk5cGkq0yqgW0aYpDk8uQyQ2WQv1pN';

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

type Versions = readonly (string | symbol)[];

/** Every route: the class and name of its method, and the versions that it serves. */
function routes(): { route: string; versions: Versions }[] {
  const controllers = [...app.nest.get(ModulesContainer).values()].flatMap((module) => [
    ...module.controllers.values(),
  ]);
  return controllers.flatMap(({ metatype }) => {
    const prototype = metatype!.prototype as Record<string, object>;
    const own = Object.getOwnPropertyNames(prototype).filter((name) =>
      Reflect.hasMetadata(METHOD_METADATA, prototype[name]!),
    );
    return own.map((name) => ({
      route: `${metatype!.name}.${name}`,
      versions: [
        (Reflect.getMetadata(VERSION_METADATA, prototype[name]!) ??
          Reflect.getMetadata(VERSION_METADATA, metatype!) ??
          VERSION_NEUTRAL) as string | Versions,
      ].flat(),
    }));
  });
}

/** Controllers whose paths have no version at all. */
const UNVERSIONED = /^(Health|Metrics)Controller\./;

it('one method serves root and version 2, always', () => {
  const found = routes().filter(({ route }) => !UNVERSIONED.test(route));
  expect(found.length).toBeGreaterThan(30);
  const split = found.filter(({ versions }) => versions.includes('2') !== versions.includes(VERSION_NEUTRAL));
  expect(split).toEqual([]);
});

const BODIES: Record<string, object> = {
  'public-keys': { name: 'n', public_key: KEY },
  recipes: { name: 'n', recipe_type: 'kiwi-ng', linux_distribution: 'sles15' },
  images: { name: 'n', metadata: { key: 'k', value: 'v' } },
};

/** What a version answers to one story, without what each record has of its own. */
async function story(version: string, kind: string) {
  const seen: unknown[] = [];
  const ask = async (method: string, path: string, body?: unknown) => {
    const answer = await app.send(method, `${version}/${kind}${path}`, { body });
    const { 'content-type': type, allow } = answer.headers;
    seen.push([method, answer.status, type, allow, answer.body]);
    return answer.body as { id: string };
  };
  const { id } = await ask('POST', '', BODIES[kind]);
  await ask('GET', `/${id}`);
  await ask('GET', '');
  await ask('HEAD', `/${id}`);
  await ask('OPTIONS', `/${id}`);
  await ask('PUT', `/${id}`, {});
  await ask('PATCH', `/${id}`, { arch: 'aarch64' });
  await ask('PATCH', `/${id}`);
  await ask('POST', '', { name: '' });
  await ask('POST', '', 'x');
  await ask('DELETE', `/${id}`);
  await ask('DELETE', `/${id}`);
  await ask('DELETE', '');
  await app.send('DELETE', `/v3/deleted/${kind}`);
  return JSON.parse(
    JSON.stringify(seen)
      .replaceAll(id, '<id>')
      .replace(/\d{4}-\d\d-\d\dT[\d:.+]+/g, '<time>')
      .replaceAll(`"There is nothing at ${version}/`, '"There is nothing at /')
      .replace(/,\\?"(?:job_id|recipe)\\?":null/g, ''),
  ) as unknown;
}

it.each(Object.keys(BODIES))('the versions answer alike about %s', async (kind) => {
  const root = await story('', kind);
  expect(await story('/v2', kind)).toEqual(root);
  expect(await story('/apis/ims', kind)).toEqual(root);
  // Version 3 has further members of its own, and keeps what it deletes.
  expect(await story('/v3', kind)).toEqual(root);
});
