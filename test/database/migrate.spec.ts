import type { MigrationInterface, QueryRunner } from 'typeorm';
import { DataSource } from 'typeorm';
import { dataSourceOptions } from '../../src/database/data-source.js';
import { runMigrations } from '../../src/database/migrate.js';
import { migrations } from '../../migrations/index.js';
import { createEmptyTestDatabase, type TestDatabase } from '../support/database.js';

class Slow1900000000000 implements MigrationInterface {
  async up(runner: QueryRunner): Promise<void> {
    await runner.query('CREATE TABLE slow (n integer)');
    await runner.query('SELECT pg_sleep(0.5)');
  }

  async down(runner: QueryRunner): Promise<void> {
    await runner.query('DROP TABLE slow');
  }
}

describe('runMigrations', () => {
  let database: TestDatabase;
  const sources: DataSource[] = [];

  const connect = async (changes: Partial<ReturnType<typeof dataSourceOptions>> = {}) => {
    const source = await new DataSource({ ...dataSourceOptions(database.url), ...changes }).initialize();
    sources.push(source);
    return source;
  };
  const locks = async (source: DataSource) =>
    source.query<{ pid: number; granted: boolean }[]>(
      `SELECT pid, granted FROM pg_locks JOIN pg_database d ON d.oid = database
       WHERE locktype = 'advisory' AND datname = current_database() ORDER BY granted DESC`,
    );
  const namesOf = async (source: DataSource) =>
    (await source.query<{ name: string }[]>('SELECT name FROM migrations ORDER BY id')).map(({ name }) => name);

  beforeEach(async () => {
    database = await createEmptyTestDatabase();
  });
  afterEach(async () => {
    await Promise.all(sources.splice(0).map((source) => source.destroy()));
    await database.drop();
  });

  it('lets servers that start at once take turns', async () => {
    const servers = await Promise.all(Array.from({ length: 6 }, () => connect()));
    await Promise.all(servers.map((server) => runMigrations(server)));
    expect(await namesOf(servers[0]!)).toEqual(migrations.map(({ name }) => name));
    expect(await locks(servers[0]!)).toEqual([]);
  });

  it('finds nothing to do the second time, and needs one connection only', async () => {
    const server = await connect({ poolSize: 1 });
    await runMigrations(server);
    await runMigrations(server);
    expect(await namesOf(server)).toHaveLength(migrations.length);
  });

  it('takes the time that it needs, and leaves the connection as it was', async () => {
    const changes = { poolSize: 1, migrations: [Slow1900000000000], extra: { statement_timeout: 200 } };
    const [first, second] = [await connect(changes), await connect(changes)];
    await Promise.all([runMigrations(first), runMigrations(second)]);
    expect(await namesOf(first)).toEqual(['Slow1900000000000']);
    expect(await first.query('SHOW statement_timeout')).toEqual([{ statement_timeout: '200ms' }]);
  });

  it('goes on in another server where one dies', async () => {
    const changes = { migrations: [Slow1900000000000] };
    const [dying, other] = [await connect(changes), await connect(changes)];
    const died = runMigrations(dying).catch((error: unknown) => error as Error);
    const observer = await connect();
    while (!(await locks(observer))[0]) await new Promise((resolve) => setTimeout(resolve, 10));
    const waited = runMigrations(other);
    while ((await locks(observer)).length < 2) await new Promise((resolve) => setTimeout(resolve, 10));
    await observer.query('SELECT pg_terminate_backend($1)', [(await locks(observer))[0]!.pid]);
    expect(await died).toBeInstanceOf(Error);
    await waited;
    expect(await namesOf(other)).toEqual(['Slow1900000000000']);
  });
});
