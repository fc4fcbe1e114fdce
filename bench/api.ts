import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import pg from 'pg';
import { startEmbeddedPostgres } from '../src/embedded/postgres.js';
import { ServerProcess } from '../test/support/server-process.js';
import { compare, rate } from './load.js';

/*
 * What the service costs beside its queries: `npm run bench:api [-- SECONDS]`. Each server is a process of its own on a database of its own,
 * and is measured in turns with the one that it is compared with.
 */

const SECONDS = Number(process.argv[2] ?? 2);
const TURNS = 7;
const CLIENTS = 16;
const SIZES = [10, 10_000, 100_000];

const directory = await mkdtemp(path.join(tmpdir(), 'ims-bench-'));
const postgres = await startEmbeddedPostgres({ directory: path.join(directory, 'postgres') });
const stops: (() => Promise<unknown>)[] = [
  () => rm(directory, { recursive: true, force: true }),
  () => postgres.stop(),
];

async function execute(url: string, sql: string): Promise<pg.QueryResult> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  return client.query(sql).finally(() => client.end());
}

/** A server of ours on a database with so many images. */
async function startOurs(size: number): Promise<{ url: string; database: string; ids: string[] }> {
  const database = Object.assign(new URL(postgres.url), { pathname: `/bench_${size}` }).href;
  await execute(postgres.url, `CREATE DATABASE bench_${size}`);
  const server = await ServerProcess.start({
    DATABASE_URL: database,
    STATE_DIR: path.join(directory, `state-${size}`),
    PORT: '0',
    EMBEDDED_S3_PORT: '0',
  });
  stops.push(() => server.stop());
  await execute(
    database,
    `INSERT INTO images (id, created, name, arch, metadata) SELECT gen_random_uuid(), now() - n * interval '1 second',
     'image ' || n, 'x86_64', '{"project": "bench"}' FROM generate_series(1, ${size}) n`,
  );
  await execute(database, 'ANALYZE');
  const { rows } = await execute(database, 'SELECT id FROM images LIMIT 1000');
  return { url: server.url, database, ids: (rows as { id: string }[]).map(({ id }) => id) };
}

async function startRaw(database: string): Promise<string> {
  const hooks = path.resolve(import.meta.dirname, '../test/support/run-typescript.mjs');
  const main = path.resolve(import.meta.dirname, 'raw-server.ts');
  const child: ChildProcess = spawn(process.execPath, ['--no-warnings', '--import', hooks, main, database], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  stops.push(async () => {
    const ended = once(child, 'exit');
    child.kill();
    await ended;
  });
  const [line] = (await once(child.stdout!, 'data')) as [Buffer];
  return line.toString().trim();
}

function say(what: string, { one, other }: { one: number; other: number }): void {
  process.stdout.write(`${what}: ${one.toFixed(0)} and ${other.toFixed(0)} requests/s\n`);
}

const body = JSON.stringify({ name: 'posted' });
const post = (url: string) => () => rate(() => ({ url: `${url}/v3/images`, method: 'POST', body }), CLIENTS, SECONDS);
const get = (url: string, ids: string[]) => () =>
  rate(() => ({ url: `${url}/v3/images/${ids[Math.floor(Math.random() * ids.length)]}` }), CLIENTS, SECONDS);
const list = (url: string) => () => rate(() => ({ url: `${url}/v3/images` }), 2, SECONDS);

try {
  const [small, medium, large] = await Promise.all(SIZES.map(startOurs));
  const raw = await startRaw(medium!.database);
  const gets = await compare(get(medium!.url, medium!.ids), get(raw, medium!.ids), TURNS);
  say('get by id, ours and raw', gets);
  const lists = await compare(list(medium!.url), list(raw), TURNS);
  say('list of 10,000, ours and raw', lists);
  const raws = await compare(post(medium!.url), post(raw), TURNS);
  say('post at 10,000, ours and raw', raws);
  const posts = await compare(post(large!.url), post(small!.url), TURNS);
  say('post at 100,000 and at 10', posts);
  process.stdout.write(`ratio get-by-id-vs-raw ${gets.ratio.toFixed(2)}\n`);
  process.stdout.write(`ratio list-10000-vs-raw ${lists.ratio.toFixed(2)}\n`);
  process.stdout.write(`ratio post-100000-vs-post-10 ${posts.ratio.toFixed(2)}\n`);
} finally {
  for (const stop of stops.toReversed()) await stop();
}
