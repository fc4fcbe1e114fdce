import { chmod, mkdir, mkdtemp, readFile, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import pg from 'pg';
import { startEmbeddedPostgres } from '../../src/embedded/postgres.js';
import { Child, DIST } from '../support/child.js';

async function query(url: string, text: string): Promise<Record<string, unknown>[]> {
  const client = new pg.Client(url);
  client.on('error', () => {});
  await client.connect();
  try {
    return (await client.query(text)).rows as Record<string, unknown>[];
  } finally {
    await client.end();
  }
}

const pidOf = async (directory: string) =>
  Number((await readFile(path.join(directory, 'home/data/postmaster.pid'), 'utf8')).split('\n')[0]);
const isAlive = (pid: number) => {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
};
const until = async (condition: () => boolean) => {
  for (let tries = 0; tries < 200 && !condition(); tries++) await new Promise((resolve) => setTimeout(resolve, 50));
  expect(condition()).toBe(true);
};
const startInChild = (directory: string, prefix: string[] = []) =>
  Child.start(
    `const { startEmbeddedPostgres } = await import(${JSON.stringify(`${DIST}/src/embedded/postgres.js`)});
     const server = await startEmbeddedPostgres({ directory: ${JSON.stringify(directory)}, durable: false });
     console.log('ready ' + JSON.stringify(server.url)); setInterval(() => {}, 1000);`,
    { prefix },
  );

describe('embedded PostgreSQL', () => {
  let directory: string;
  beforeEach(async () => {
    directory = await mkdtemp(path.join(tmpdir(), 'ims-postgres-'));
  });
  afterEach(() => rm(directory, { recursive: true, force: true }));

  it('starts, keeps its data over a stop, and listens on no port', async () => {
    const first = await startEmbeddedPostgres({ directory, durable: false });
    await query(first.url, 'CREATE TABLE t AS SELECT 42 AS n');
    expect(await query(first.url, 'SHOW listen_addresses')).toEqual([{ listen_addresses: '' }]);
    await first.stop();
    const second = await startEmbeddedPostgres({ directory, durable: false });
    expect(await query(second.url, 'SELECT n FROM t')).toEqual([{ n: 42 }]);
    await second.stop();
    await second.stop();
  });

  it('recovers from a killed server and says that it ended', async () => {
    const first = await startEmbeddedPostgres({ directory });
    await query(first.url, 'CREATE TABLE t AS SELECT 1 AS n');
    process.kill(await pidOf(directory), 'SIGKILL');
    expect(await first.ended).toMatch(/SIGKILL/);
    const second = await startEmbeddedPostgres({ directory });
    expect(await query(second.url, 'SELECT n FROM t')).toEqual([{ n: 1 }]);
    await second.stop();
  });

  it('leaves no orphan when its parent is killed, and starts again', async () => {
    const child = startInChild(directory);
    const url = await child.ready<string>();
    await query(url, 'CREATE TABLE t AS SELECT 7 AS n');
    const pid = await pidOf(directory);
    await child.kill('SIGKILL');
    const again = await startEmbeddedPostgres({ directory, durable: false });
    expect(await query(again.url, 'SELECT n FROM t')).toEqual([{ n: 7 }]);
    await until(() => !isAlive(pid));
    await again.stop();
  });

  it('refuses a directory that a living server uses', async () => {
    const child = startInChild(directory);
    await child.ready();
    await expect(startEmbeddedPostgres({ directory, durable: false })).rejects.toThrow(
      /in use by the PostgreSQL server with pid \d+.*STATE_DIR/,
    );
    const pid = await pidOf(directory);
    await child.kill();
    await until(() => !isAlive(pid));
  });

  it('starts after an initdb that was killed', async () => {
    await mkdir(path.join(directory, 'home', 'initdb.killed'), { recursive: true });
    const server = await startEmbeddedPostgres({ directory, durable: false });
    await server.stop();
  });

  it('finds a short place for its socket below a deep directory', async () => {
    const deep = path.join(directory, 'a'.repeat(60), 'b'.repeat(60));
    const server = await startEmbeddedPostgres({ directory: deep, durable: false });
    expect(await query(server.url, 'SELECT 1 AS n')).toEqual([{ n: 1 }]);
    await server.stop();
  });

  (process.getuid!() === 0 ? it : it.skip)('runs below a directory that only root can enter', async () => {
    await mkdir(path.join(directory, 'state'));
    const server = await startEmbeddedPostgres({ directory: path.join(directory, 'state'), durable: false });
    expect((await stat(path.join(directory, 'state/home/data'))).uid).toBe(0);
    await server.stop();
    await chmod(directory, 0o755);
    const reachable = await startEmbeddedPostgres({ directory: path.join(directory, 'state'), durable: false });
    expect((await stat(path.join(directory, 'state/home/data'))).uid).not.toBe(0);
    await reachable.stop();
  });

  (process.getuid!() === 0 ? it : it.skip)('runs without root', async () => {
    const home = path.join(directory, 'mine');
    await mkdir(home);
    await chmod(directory, 0o755);
    await chmod(home, 0o777);
    const child = startInChild(home, ['setpriv', '--reuid=65534', '--regid=65534', '--clear-groups']);
    await child.ready();
    const pid = await pidOf(home);
    await child.kill();
    await until(() => !isAlive(pid));
  });
});
