import { readFileSync } from 'node:fs';
import path from 'node:path';
import { openApiText } from '../../src/openapi.js';

const file = path.resolve(import.meta.dirname, '../../openapi/openapi.json');

it('openapi/openapi.json is what `npm run openapi` writes', async () => {
  expect(readFileSync(file, 'utf8')).toBe(await openApiText());
});

it('the document names every route and what it answers', () => {
  const { paths } = JSON.parse(readFileSync(file, 'utf8')) as {
    paths: Record<string, Record<string, { summary?: string; responses: Record<string, unknown> }>>;
  };
  const operations = Object.values(paths).flatMap((methods) => Object.values(methods));
  expect(operations.filter(({ summary }) => !summary)).toEqual([]);
  expect(operations.filter(({ responses }) => !Object.keys(responses).some((status) => status < '300'))).toEqual([]);
  for (const kind of ['public-keys', 'recipes', 'images'])
    expect(Object.keys(paths)).toEqual(
      expect.arrayContaining([`/v3/${kind}`, `/v3/${kind}/{id}`, `/v3/deleted/${kind}`, `/v3/deleted/${kind}/{id}`]),
    );
});
