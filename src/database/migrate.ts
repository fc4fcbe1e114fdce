import type { DataSource } from 'typeorm';

/** Any number that no other program on the same database uses for its advisory locks. */
const MIGRATION_LOCK = 0x494d5301;

/**
 * Brings the schema up to date. Servers that start at once on one database take turns: the first migrates, the others find nothing to do.
 * The lock is held on a connection of its own and goes with it, so that a server that dies while it migrates blocks nobody.
 */
export async function runMigrations(dataSource: DataSource): Promise<void> {
  const runner = dataSource.createQueryRunner();
  await runner.connect();
  try {
    await runner.query('SELECT pg_advisory_lock($1)', [MIGRATION_LOCK]);
    await dataSource.runMigrations({ transaction: 'each' });
  } finally {
    await runner.query('SELECT pg_advisory_unlock($1)', [MIGRATION_LOCK]).catch(() => {});
    await runner.release();
  }
}
