import { type DataSource, MigrationExecutor, type QueryRunner } from 'typeorm';

/** Any number that no other program on the same database uses for its advisory locks. */
const MIGRATION_LOCK = 0x494d5301;

/**
 * Brings the schema up to date. Servers that start at once on one database take turns: the first migrates, the others find nothing to do.
 * The lock is held on the connection that migrates and goes with it, so that a server that dies while it migrates blocks nobody; what
 * it had not committed is gone.
 */
export async function runMigrations(dataSource: DataSource): Promise<void> {
  const runner = dataSource.createQueryRunner();
  await runner.connect();
  try {
    // The time that a query may take is for requests: an index over many records takes longer, and so does the wait for it.
    await runner.query('SET statement_timeout = 0');
    await runner.query('SELECT pg_advisory_lock($1)', [MIGRATION_LOCK]);
    await executeMigrations(dataSource, runner);
  } finally {
    await giveBack(runner);
  }
}

/** One connection for the lock and the migrations: a pool of a single connection is enough. */
async function executeMigrations(dataSource: DataSource, runner: QueryRunner): Promise<void> {
  const executor = new MigrationExecutor(dataSource, runner);
  executor.transaction = 'each';
  await executor.executePendingMigrations();
}

/** Leaves the connection to the pool as it was. One that broke is thrown away by the pool, and its lock is gone already. */
async function giveBack(runner: QueryRunner): Promise<void> {
  await runner.query('SELECT pg_advisory_unlock($1)', [MIGRATION_LOCK]).catch(() => {});
  await runner.query('RESET statement_timeout').catch(() => {});
  await runner.release();
}
