import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { appendFile, mkdir, mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { buffer } from 'node:stream/consumers';
import { LocalJobLauncher, type LocalLauncherOptions } from '../../src/jobs/launcher/local/local-job-launcher.js';
import type { CustomizeSpec } from '../../src/protocol/job-spec.js';
import { Child, DIST } from '../support/child.js';
import { aJobSpec } from '../support/job-spec.js';
import { MemoryJobLauncher } from '../support/memory-job-launcher.js';
import { freePorts } from '../support/ports.js';
import { until } from '../support/system.js';
import { describeJobLauncher, SUITE_LIMITS } from './job-launcher.js';

/**
 * A worker that does what it is told by a file beside its specification: `print <text as JSON>`, `flood`, `mount`, `spawn`, `end well`,
 * `end badly`. A job of the name `broken` fails in its first phase.
 */
const OBEDIENT_WORKER = `
import { execFileSync, spawn } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
const [phase, spec] = process.argv.slice(2);
if (phase === 'fetch-image') process.exit(JSON.parse(readFileSync(spec)).image_root_archive_name === 'broken' ? 4 : 0);
const orders = path.join(path.dirname(spec), 'orders');
const obey = {
  print: (text) => process.stdout.write(JSON.parse(text)),
  flood: () => {
    for (const stream of [process.stdout, process.stderr]) stream.write('x'.repeat(20 << 20) + '\\n');
  },
  mount: () => {
    const root = path.join(path.dirname(spec), 'root');
    mkdirSync(root);
    execFileSync('mount', ['-t', 'tmpfs', 'ims-test', root]);
    process.stdout.write('mounted');
  },
  spawn: () =>
    spawn('sh', ['-c', 'trap "" TERM INT HUP; while :; do sleep 1; done', 'ims-grandchild', spec], { detached: true, stdio: 'ignore' }),
  end: (how) => process.exit(how === 'well' ? 0 : 3),
};
let done = 0;
setInterval(() => {
  const lines = existsSync(orders) ? readFileSync(orders, 'utf8').split('\\n').slice(0, -1) : [];
  for (const line of lines.slice(done)) {
    done++;
    const [verb, ...rest] = line.split(' ');
    // The other phase ends when the shell does, or is ended by its launcher.
    if (phase === 'shell' || line === 'end well') obey[verb](rest.join(' '));
  }
}, 10);
`;

interface LocalUnderTest {
  launcher: LocalJobLauncher;
  options: LocalLauncherOptions;
  directory: string;
  readonly order: (jobId: string, order: string) => Promise<void>;
  readonly close: () => Promise<void>;
}

async function openLocal(
  findLocalFile: LocalLauncherOptions['findLocalFile'] = async () => null,
): Promise<LocalUnderTest> {
  const directory = await mkdtemp(path.join(tmpdir(), 'ims-launcher-'));
  const workerMain = path.join(directory, 'worker.mjs');
  await writeFile(workerMain, OBEDIENT_WORKER);
  const first = await freePorts(SUITE_LIMITS.ports);
  const options: LocalLauncherOptions = {
    directory: path.join(directory, 'jobs'),
    workerMain,
    workerEnvironment: {},
    maxRunning: SUITE_LIMITS.maxRunning,
    ports: { first, last: first + SUITE_LIMITS.ports - 1 },
    listenAddress: '127.0.0.1',
    host: '127.0.0.1',
    findLocalFile,
  };
  const launcher = new LocalJobLauncher(options);
  await launcher.sweep();
  return {
    launcher,
    options,
    directory,
    order: (jobId, order) => appendFile(path.join(directory, 'jobs', jobId, 'orders'), `${order}\n`),
    close: async () => {
      await launcher.stop();
      await rm(directory, { recursive: true });
    },
  };
}

describeJobLauncher('LocalJobLauncher', async () => {
  const { launcher, order, close } = await openLocal();
  return {
    launcher,
    print: (jobId, text) => order(jobId, `print ${JSON.stringify(text)}`),
    end: (jobId, how) => order(jobId, `end ${how}`),
    close,
  };
});

describeJobLauncher('MemoryJobLauncher', async () => {
  const launcher = new MemoryJobLauncher(SUITE_LIMITS.maxRunning, { first: 1, last: SUITE_LIMITS.ports });
  return {
    launcher,
    print: async (jobId, text) => launcher.print(jobId, 'sshd', text),
    end: async (jobId, how) => launcher.finish(jobId, how === 'well' ? null : 'it was told to end badly'),
    close: async () => {},
  };
});

describe('LocalJobLauncher', () => {
  let under: LocalUnderTest;

  beforeEach(async () => {
    under = await openLocal();
  });
  afterEach(() => under.close());

  it('takes along what a worker has started, however it clings', async () => {
    const { launcher, order } = under;
    const spec = aJobSpec();
    await launcher.launch(spec);
    await order(spec.job_id, 'spawn');
    await until('the grandchild runs', async () => (await processesWith('ims-grandchild', spec.job_id)) > 0);
    await launcher.remove(spec.job_id);
    expect(await processesWith('ims-grandchild', spec.job_id)).toBe(0);
  });

  it('ends what a worker has mounted with it', async () => {
    const { launcher, order, directory } = under;
    const { job_id } = await launched(launcher);
    await order(job_id, 'mount');
    await until('it is mounted', async () => (await logOf(launcher, job_id)) === 'mounted');
    expect(await mountsBelow(directory)).not.toEqual([]);
    expect(await readFile('/proc/self/mountinfo', 'utf8')).not.toContain(directory);
    await launcher.release(job_id);
    expect(await mountsBelow(directory)).toEqual([]);
    expect(await readdir(path.join(directory, 'jobs', job_id))).toEqual(['logs']);
  });

  it('starts no shell where the image could not be fetched', async () => {
    const { launcher, directory } = under;
    const { job_id } = await launched(launcher, { image_root_archive_name: 'broken' });
    await until('it has ended', async () => (await launcher.observe(job_id)).state === 'ended');
    expect(await launcher.observe(job_id)).toMatchObject({ reason: expect.stringContaining('the phase fetch-image') });
    expect(await readdir(path.join(directory, 'jobs', job_id, 'logs'))).toEqual(['fetch-image.log']);
  });

  it('ends the phase that waits for one that failed', async () => {
    const { launcher, order } = under;
    const { job_id } = await launched(launcher);
    await until('both run', async () => (await processesWith('worker.mjs', 'finish', job_id)) > 0);
    await order(job_id, 'end badly');
    await until('it has ended', async () => (await launcher.observe(job_id)).state === 'ended');
    expect(await launcher.observe(job_id)).toMatchObject({ reason: expect.stringContaining('the phase shell') });
    expect(await processesWith(job_id)).toBe(0);
  });

  it('keeps the beginning of a long log, and its end, which says how it went', async () => {
    const { launcher, order, directory } = under;
    const { job_id } = await launched(launcher);
    await order(job_id, 'flood');
    const log = path.join(directory, 'jobs', job_id, 'logs', 'shell.log');
    const limit = 12 * 1024 * 1024;
    await until('the log is full', async () => (await sizeOf(log)) === limit);
    await order(job_id, 'print "more"');
    await order(job_id, 'end well');
    await until('it has ended', async () => (await launcher.observe(job_id)).state === 'ended');
    const text = await readFile(log, 'utf8');
    const left = 2 * (20 << 20) + '\n\nmore'.length - (16 << 20);
    expect(text.slice(limit, limit + 99)).toMatch(
      new RegExp(`^\\n\\[${left} bytes of the log of this phase were left out here\\]\\nx+$`),
    );
    expect(text.slice(limit)).toContain('more');
    expect(text.length).toBeLessThan((16 << 20) + 99);
  });

  it('leaves nothing of a launch that failed, but the address', async () => {
    const { launcher, directory, close } = await openLocal(() => Promise.reject(new Error('the disk is broken')));
    const spec = aJobSpec();
    const address = await launcher.address(spec.job_id);
    spec.shell.port = address.customer_access.port;
    await expect(launcher.launch(spec)).rejects.toThrow('the disk is broken');
    expect([await readdir(path.join(directory, 'jobs')), await launcher.free()]).toEqual([[], SUITE_LIMITS.maxRunning]);
    expect(await launcher.observe(spec.job_id)).toEqual({ state: 'absent' });
    expect(await launcher.address(spec.job_id)).toEqual(address);
    await close();
  });

  it('leaves nothing running when its server is killed', async () => {
    const { options, order, directory } = under;
    const spec = aJobSpec();
    const module = path.join(DIST, 'src/jobs/launcher/local/local-job-launcher.js');
    const server = Child.start(`
      const { LocalJobLauncher } = await import(${JSON.stringify(module)});
      const launcher = new LocalJobLauncher({ ...${JSON.stringify(options)}, findLocalFile: async () => null });
      await launcher.launch(${JSON.stringify(spec)});
      console.log('ready {}');
      setInterval(() => {}, 1000);
    `);
    await server.ready();
    await order(spec.job_id, 'spawn');
    await until('the grandchild runs', async () => (await processesWith('ims-grandchild', spec.job_id)) > 0);
    await server.kill();
    await until('all processes are gone', async () => (await processesWith(spec.job_id)) === 0);
    const next = new LocalJobLauncher(options);
    await next.sweep();
    expect(await next.observe(spec.job_id)).toMatchObject({ reason: expect.stringContaining('was stopped') });
    expect(await readdir(path.join(directory, 'jobs', spec.job_id))).toEqual(['logs']);
  });

  it('ends workers that outlived their server, and nobody else, before it launches', async () => {
    const { options } = under;
    const run = (file: string) => spawn('sh', ['-c', 'while :; do sleep 1; done', 'ims-left-over', file]);
    const left = run(path.join(options.directory, aJobSpec().job_id, 'job.json'));
    const other = run(`/elsewhere${options.directory}/job.json`);
    const ended = once(left, 'exit');
    await until('they run', async () => (await processesWith('ims-left-over', options.directory)) === 2);
    await new LocalJobLauncher(options).sweep();
    expect(await ended).toEqual([null, 'SIGKILL']);
    expect(other.exitCode ?? other.signalCode).toBeNull();
    other.kill('SIGKILL');
    await once(other, 'exit');
  });

  it('tells of a directory that an earlier server left that its job was interrupted', async () => {
    const { launcher, directory } = under;
    const id = '5d3fd3c4-9f43-4b2e-8a34-9d0c39c2b4f1';
    await mkdir(path.join(directory, 'jobs', id, 'logs'), { recursive: true });
    await writeFile(path.join(directory, 'jobs', id, 'source.sqsh'), 'left');
    expect(await launcher.observe(id)).toMatchObject({
      state: 'ended',
      reason: expect.stringContaining('was stopped'),
    });
    await launcher.release(id);
    await expect(readFile(path.join(directory, 'jobs', id, 'source.sqsh'))).rejects.toThrow('ENOENT');
    await launcher.remove(id);
    expect(await launcher.list()).toEqual([]);
  });
});

/** Launches a job on a port of its own. */
async function launched(launcher: LocalJobLauncher, values: Partial<CustomizeSpec> = {}): Promise<CustomizeSpec> {
  const spec = aJobSpec(values);
  const { port } = (await launcher.address(spec.job_id)).customer_access;
  const whole = { ...spec, shell: { ...spec.shell, port } };
  await launcher.launch(whole);
  return whole;
}

async function logOf(launcher: LocalJobLauncher, jobId: string): Promise<string> {
  return (await buffer(launcher.log(jobId, 'sshd', 0, null))).toString();
}

/** Bytes of a file; 0 where it is not there yet. */
async function sizeOf(file: string): Promise<number> {
  return stat(file).then(
    ({ size }) => size,
    () => 0,
  );
}

/** Lines of the mount tables of all processes that name a directory. */
async function mountsBelow(directory: string): Promise<string[]> {
  const pids = (await readdir('/proc')).filter((name) => /^\d+$/.test(name));
  const tables = await Promise.all(pids.map((pid) => readFile(`/proc/${pid}/mountinfo`, 'utf8').catch(() => '')));
  return tables.flatMap((table) => table.split('\n')).filter((line) => line.includes(`${directory}/`));
}

/** How many processes of this machine have both words in their command line. */
async function processesWith(...words: string[]): Promise<number> {
  const pids = (await readdir('/proc')).filter((name) => /^\d+$/.test(name));
  const commands = await Promise.all(pids.map((pid) => readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '')));
  return commands.filter((command) => words.every((word) => command.includes(word))).length;
}
