import 'reflect-metadata';
import { readFile, writeFile } from 'node:fs/promises';
import { withSettings } from './config/chart-settings.js';
import { settingsText } from './config/settings-text.js';
import { openApiText } from './openapi.js';

const CHART_SCHEMA = 'helm/cray-ims/values.schema.json';

// What is made from the code and kept beside it. Tests fail when it is stale.
await writeFile('openapi/openapi.json', await openApiText());
await writeFile('docs/settings.md', settingsText());
await writeFile(CHART_SCHEMA, withSettings(await readFile(CHART_SCHEMA, 'utf8')));
