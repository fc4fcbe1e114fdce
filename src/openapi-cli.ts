import 'reflect-metadata';
import { writeFile } from 'node:fs/promises';
import { openApiText } from './openapi.js';

await writeFile('openapi/openapi.json', await openApiText());
