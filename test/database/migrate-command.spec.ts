import { spawnSync } from 'node:child_process';
import path from 'node:path';
import { DIST } from '../support/child.js';
import { createEmptyTestDatabase, type TestDatabase } from '../support/database.js';

/** Runs the hook of the chart. */
function migrate(url: string) {
  const { status, stdout, stderr } = spawnSync(process.execPath, [path.join(DIST, 'src/migrate.js')], {
    env: { PATH: process.env['PATH'], DATABASE_URL: url },
    encoding: 'utf8',
  });
  return { status, stdout, stderr };
}

describe('the migration command', () => {
  let database: TestDatabase;
  beforeEach(async () => {
    database = await createEmptyTestDatabase();
  });
  afterEach(() => database.drop());

  it('brings a schema up to date, and finds nothing to do the next time', () => {
    const first = migrate(database.url);
    expect([first.status, first.stderr]).toEqual([0, '']);
    expect(first.stdout).toMatch(/^the schema is up to date: ran RecordsAndJobs\d+, /);
    expect(migrate(database.url)).toEqual({ status: 0, stdout: 'the schema is up to date\n', stderr: '' });
  }, 60_000);

  it('fails with a sentence where it has no database', () => {
    expect(migrate('')).toMatchObject({
      status: 1,
      stderr: expect.stringMatching(/^cannot migrate: set DATABASE_URL/),
    });
    const unreachable = migrate('postgres://ims:wrong@127.0.0.1:1/ims');
    expect(unreachable).toMatchObject({ status: 1, stderr: expect.stringMatching(/^cannot migrate: .*ECONNREFUSED/) });
    expect(unreachable.stderr).not.toContain('wrong');
  }, 60_000);
});
