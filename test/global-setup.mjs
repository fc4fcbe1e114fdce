import { mkdtemp } from 'node:fs/promises';
import { register } from 'node:module';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { DataSource } from 'typeorm';

/** One PostgreSQL for the whole run. Its database `ims` has the schema and no records: the template of every test database. */
export default async function startPostgres() {
  register('./support/typescript-hooks.mjs', import.meta.url);
  const { startEmbeddedPostgres } = await import('../src/embedded/postgres.js');
  const directory = await mkdtemp(path.join(tmpdir(), 'ims-test-postgres-'));
  const postgres = await startEmbeddedPostgres({ directory, durable: false });
  globalThis.testPostgres = { directory, postgres };
  await makeTemplate(postgres.url);
  process.env.IMS_TEST_POSTGRES_URL = postgres.url;
}

async function makeTemplate(url) {
  const { dataSourceOptions } = await import('../src/database/data-source.js');
  const { runMigrations } = await import('../src/database/migrate.js');
  const template = await new DataSource(dataSourceOptions(url)).initialize();
  await runMigrations(template);
  await template.destroy();
}
