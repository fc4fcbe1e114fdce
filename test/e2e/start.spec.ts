import { execFile } from 'node:child_process';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { DIST } from '../support/child.js';
import { ServerProcess } from '../support/server-process.js';

let directory: string;

beforeEach(async () => {
  directory = await mkdtemp(path.join(tmpdir(), 'ims-start-'));
});
afterEach(() => rm(directory, { recursive: true, force: true }));

const defaults = () => ({ STATE_DIR: path.join(directory, 'state'), PORT: '0', EMBEDDED_S3_PORT: '0' });

/** Starts a server that cannot work, and tells how it ended. */
function failedStart(environment: Record<string, string>): Promise<{ code: unknown; output: string; seconds: number }> {
  const begun = Date.now();
  const env = { PATH: process.env['PATH'], ...defaults(), ...environment };
  return new Promise((resolve) => {
    execFile(
      process.execPath,
      ['--no-warnings', path.join(DIST, 'src/main.js')],
      { env, timeout: 30_000 },
      (error, stdout, stderr) =>
        resolve({ code: error?.code, output: stdout + stderr, seconds: (Date.now() - begun) / 1000 }),
    );
  });
}

it('names every bad setting at once, and no secret', async () => {
  const { code, output, seconds } = await failedStart({
    PORT: 'http',
    LOG_LEVEL: 'loud',
    DATABASE_URL: 'mysql://user:hidden-password@host/',
    JOB_LAUNCHER: 'docker',
    S3_SSL_VALIDATE: 'perhaps',
    JOB_SSH_PORTS: '9-1',
    S3_SECRET_KEY: 'hidden-key',
  });
  expect(code).toBe(1);
  for (const name of ['PORT', 'LOG_LEVEL', 'DATABASE_URL', 'JOB_LAUNCHER', 'S3_SSL_VALIDATE', 'JOB_SSH_PORTS'])
    expect(output).toMatch(new RegExp(`\\b${name}\\b`));
  expect(output).not.toMatch(/hidden|\n\s+at /);
  expect(seconds).toBeLessThan(5);
});

it.each<[string, () => Promise<Record<string, string>>, RegExp]>([
  [
    'there is no cluster where Kubernetes is asked for',
    async () => ({
      JOB_LAUNCHER: 'kubernetes',
      JOB_SERVER_URL: 'http://127.0.0.1:1',
      JOB_WORKER_IMAGE: 'cray-ims-worker',
      DATABASE_URL: process.env['IMS_TEST_POSTGRES_URL']!,
      S3_ENDPOINT: 'http://127.0.0.1:1',
      S3_ACCESS_KEY: 'a',
      S3_SECRET_KEY: 's',
    }),
    /cannot start: JOB_LAUNCHER=kubernetes finds no cluster: .* or set KUBECONFIG/,
  ],
  [
    'the state directory is a file',
    async () => {
      await writeFile(path.join(directory, 'file'), '');
      return { STATE_DIR: path.join(directory, 'file') };
    },
    /cannot start: .*\/file cannot be written \(EEXIST\): set STATE_DIR/,
  ],
  [
    'the state directory cannot be made',
    async () => ({ STATE_DIR: '/sys/ims-state' }),
    /cannot start: \/sys\/ims-state cannot be written \(E\w+\): set STATE_DIR/,
  ],
  [
    'the database is not there',
    async () => ({ DATABASE_URL: 'postgres://user:hidden-password@127.0.0.1:1/ims' }),
    /cannot start: the database cannot be used \(connect ECONNREFUSED 127.0.0.1:1\): check DATABASE_URL/,
  ],
])(
  'says in a sentence that %s',
  async (_what, environment, sentence) => {
    const { code, output } = await failedStart(await environment());
    expect(code).toBe(1);
    expect(output).toMatch(sentence);
    expect(output).not.toMatch(/hidden|\n\s+at /);
  },
  60_000,
);

it('says in a sentence that its port is taken', async () => {
  const other = createServer().listen(0, '127.0.0.1');
  await new Promise((resolve) => other.once('listening', resolve));
  const { port } = other.address() as { port: number };
  const { code, output } = await failedStart({ PORT: String(port) });
  other.close();
  expect(code).toBe(1);
  expect(output).toContain(
    `cannot start: port ${port} of 127.0.0.1 cannot be had (another process listens there): set PORT or LISTEN_ADDRESS to another`,
  );
  expect(output).not.toContain('Connection terminated');
  expect(output).not.toMatch(/\n\s+at /);
}, 60_000);

it('says in a sentence that another server uses its state directory', async () => {
  const server = await ServerProcess.start(defaults());
  const attempts = [
    await failedStart({}),
    // Jobs live there also where database and store are elsewhere.
    await failedStart({
      DATABASE_URL: process.env['IMS_TEST_POSTGRES_URL']!,
      S3_ENDPOINT: 'http://127.0.0.1:1',
      S3_ACCESS_KEY: 'a',
      S3_SECRET_KEY: 's',
    }),
  ];
  await server.stop();
  for (const { code, output } of attempts) {
    expect(code).toBe(1);
    expect(output).toMatch(
      /cannot start: \S+ is in use by the server with pid \d+: stop it, or choose another STATE_DIR/,
    );
    expect(output).not.toMatch(/\n\s+at /);
  }
}, 60_000);

it('keeps the id of its state directory, also where a power cut left it empty', async () => {
  const file = path.join(directory, 'state', 'id');
  await (await ServerProcess.start(defaults())).stop();
  const id = await readFile(file, 'utf8');
  expect(id).toMatch(/^[\da-f-]{36}$/);
  await (await ServerProcess.start(defaults())).stop();
  expect(await readFile(file, 'utf8')).toBe(id);
  await writeFile(file, '');
  await (await ServerProcess.start(defaults())).stop();
  expect(await readFile(file, 'utf8')).toMatch(/^[\da-f-]{36}$/);
}, 60_000);

it('is ready when database, store and launcher work, and says so without settings', async () => {
  const server = await ServerProcess.start(defaults());
  const response = await fetch(`${server.url}/healthz/ready`);
  expect([response.status, (await fetch(`${server.url}/healthz/live`)).status]).toEqual([200, 200]);
  await server.stop();
}, 60_000);
