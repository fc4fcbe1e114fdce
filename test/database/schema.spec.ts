import { DataSource } from 'typeorm';
import { dataSourceOptions } from '../../src/database/data-source.js';
import { runMigrations } from '../../src/database/migrate.js';
import { createEmptyTestDatabase, type TestDatabase } from '../support/database.js';

describe('the schema that the migrations make', () => {
  let database: TestDatabase;
  let dataSource: DataSource;

  const tables = async () =>
    (
      await dataSource.query<{ name: string }[]>(
        `SELECT table_name AS name FROM information_schema.tables WHERE table_schema = 'public' ORDER BY 1`,
      )
    ).map(({ name }) => name);

  beforeAll(async () => {
    database = await createEmptyTestDatabase();
    dataSource = await new DataSource(dataSourceOptions(database.url)).initialize();
    await runMigrations(dataSource);
  });
  afterAll(async () => {
    await dataSource?.destroy();
    await database?.drop();
  });

  it('is the one that the entities describe', async () => {
    const { upQueries } = await dataSource.driver.createSchemaBuilder().log();
    // What `typeorm migration:generate` would write: the statements that a new migration has to hold.
    expect(upQueries.map(({ query }) => query)).toEqual([]);
  });

  it('has a table for each entity', async () => {
    expect(await tables()).toEqual(
      [...dataSource.entityMetadatas.map(({ tableName }) => tableName), 'migrations'].toSorted(),
    );
  });

  it('goes away when the migrations are undone', async () => {
    const before = dataSource.migrations.length;
    for (let undone = 0; undone < before; undone++) await dataSource.undoLastMigration();
    expect(await tables()).toEqual(['migrations']);
    await runMigrations(dataSource);
  });
});
