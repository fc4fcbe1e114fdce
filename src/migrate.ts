import 'reflect-metadata';
import { DataSource } from 'typeorm';
import { BadConfiguration, loadConfig } from './config/config.js';
import { dataSourceOptions } from './database/data-source.js';
import { runMigrations } from './database/migrate.js';

// Brings the schema of DATABASE_URL up to date and ends: the hook of the Helm chart, so that a migration that fails stops an upgrade before
// it replaces a server. Servers that start meanwhile wait for it.
async function migrate(): Promise<void> {
  const { url } = loadConfig().database;
  if (!url) throw new Error('set DATABASE_URL: the embedded database is migrated by the server that starts it');
  const database = await new DataSource(dataSourceOptions(url, 1)).initialize();
  try {
    const before = await executed(database);
    await runMigrations(database);
    const names = (await executed(database)).slice(before.length);
    process.stdout.write(`the schema is up to date${names.length ? `: ran ${names.join(', ')}` : ''}\n`);
  } finally {
    await database.destroy();
  }
}

/** Names of the migrations that have run, oldest first. */
async function executed(database: DataSource): Promise<string[]> {
  const [{ exists }] = (await database.query(`SELECT to_regclass('migrations') IS NOT NULL AS exists`)) as [
    { exists: boolean },
  ];
  if (!exists) return [];
  const rows = (await database.query('SELECT name FROM migrations ORDER BY id')) as { name: string }[];
  return rows.map(({ name }) => name);
}

await migrate().catch((error: Error) => {
  process.stderr.write(`${error instanceof BadConfiguration ? error.message : `cannot migrate: ${error.message}`}\n`);
  process.exitCode = 1;
});
