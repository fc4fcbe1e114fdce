import 'reflect-metadata';
import { writeFile } from 'node:fs/promises';
import { settingsText } from './config/settings-text.js';
import { openApiText } from './openapi.js';

// What is made from the code and kept beside it. Tests fail when it is stale.
await writeFile('openapi/openapi.json', await openApiText());
await writeFile('docs/settings.md', settingsText());
