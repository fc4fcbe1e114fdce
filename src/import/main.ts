import 'reflect-metadata';
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { DataSource } from 'typeorm';
import { BadConfiguration, type Config, loadConfig } from '../config/config.js';
import { dataSourceOptions } from '../database/data-source.js';
import { runMigrations } from '../database/migrate.js';
import { startEmbeddedPostgres } from '../embedded/postgres.js';
import { importRecords, reportOf } from './import-records.js';
import { ImportFailure, type Original, readApi, readDirectory } from './sources.js';

const USAGE = `Takes over the records of a running original, or of its data files: ids and times stay, what is here already too.

  npm run import -- --from DIR|URL [--token-file FILE] [--dry-run]

DIR         the directory with v2.1_images.json and the others (/var/ims/data in the original's pod)
URL         the original's API, as https://api-gw-service-nmn.local/apis/ims
--token-file  a file with the Bearer token for URL
--dry-run   only say what would happen

The database is that of the server: DATABASE_URL, or the embedded one below STATE_DIR, whose server has to be stopped meanwhile.
Artifacts stay in the S3 store that the links of the records name: the server has to use the same one.
`;

interface Options {
  from: string;
  tokenFile: string | null;
  dryRun: boolean;
}

function readOptions(): Options | null {
  const { values } = parseArgs({
    options: {
      from: { type: 'string' },
      'token-file': { type: 'string' },
      'dry-run': { type: 'boolean', default: false },
      help: { type: 'boolean', default: false },
    },
  });
  if (!values.from || values.help) return null;
  return { from: values.from, tokenFile: values['token-file'] ?? null, dryRun: values['dry-run'] };
}

async function readOriginal({ from, tokenFile }: Options): Promise<Original> {
  if (!/^https?:\/\//i.test(from)) return readDirectory(from);
  return readApi(from, tokenFile && (await readFile(tokenFile, 'utf8')).trim());
}

/** The database of the server, its schema up to date. */
async function withDatabase<T>({ database, stateDir }: Config, work: (database: DataSource) => Promise<T>): Promise<T> {
  const postgres = database.url
    ? null
    : await startEmbeddedPostgres({ directory: path.join(path.resolve(stateDir), 'postgres') });
  const connection = new DataSource(dataSourceOptions(database.url ?? postgres!.url, 1));
  try {
    await connection.initialize();
    await runMigrations(connection);
    return await work(connection);
  } finally {
    if (connection.isInitialized) await connection.destroy();
    await postgres?.stop();
  }
}

async function main(): Promise<number> {
  const options = readOptions();
  if (!options) {
    process.stderr.write(USAGE);
    return 2;
  }
  const config = loadConfig();
  const original = await readOriginal(options);
  const outcomes = await withDatabase(config, (database) => importRecords(database, original, options));
  process.stdout.write(reportOf(original, outcomes));
  if (options.dryRun) process.stdout.write('This was a dry run: nothing was changed.\n');
  return 0;
}

process.exitCode = await main().catch((error: Error) => {
  const isExpected = error instanceof ImportFailure || error instanceof BadConfiguration;
  process.stderr.write(`${isExpected ? error.message : `cannot import, and nothing was changed: ${error.message}`}\n`);
  return 1;
});
