import { readFile } from 'node:fs/promises';
import { settingsText } from './settings-text.js';

it('docs/settings.md is what `npm run openapi` writes', async () => {
  expect(await readFile('docs/settings.md', 'utf8')).toBe(settingsText());
});
