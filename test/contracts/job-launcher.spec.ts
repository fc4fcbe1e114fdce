import { appendFile, mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { LocalJobLauncher } from '../../src/jobs/launcher/local/local-job-launcher.js';
import { aJobSpec } from '../support/job-spec.js';
import { MemoryJobLauncher } from '../support/memory-job-launcher.js';
import { until } from '../support/system.js';
import { describeJobLauncher, SUITE_LIMITS } from './job-launcher.js';

/**
 * A worker that does what it is told by a file beside its specification: `print <text as JSON>`, `end well`, `end badly`, `spawn`. It
 * prints what it has mounted and started, so that tests can look for that later.
 */
const OBEDIENT_WORKER = `
import { spawn } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import path from 'node:path';
const [phase, spec] = process.argv.slice(2);
if (phase === 'fetch-image') process.exit(0);
const orders = path.join(path.dirname(spec), 'orders');
let done = 0;
setInterval(() => {
  const lines = existsSync(orders) ? readFileSync(orders, 'utf8').split('\\n').slice(0, -1) : [];
  for (const [verb, ...rest] of lines.slice(done).map((line) => line.split(' '))) {
    done++;
    if (verb === 'print' && phase === 'shell') process.stdout.write(JSON.parse(rest.join(' ')));
    if (verb === 'spawn' && phase === 'shell')
      spawn('sh', ['-c', 'trap "" TERM INT HUP; while :; do sleep 1; done', 'ims-grandchild', spec], { detached: true, stdio: 'ignore' });
    if (verb === 'end') process.exit(rest[0] === 'well' || phase !== 'shell' ? 0 : 3);
  }
}, 10);
`;

interface LocalUnderTest {
  launcher: LocalJobLauncher;
  directory: string;
  readonly order: (jobId: string, order: string) => Promise<void>;
  readonly close: () => Promise<void>;
}

async function openLocal(): Promise<LocalUnderTest> {
  const directory = await mkdtemp(path.join(tmpdir(), 'ims-launcher-'));
  const workerMain = path.join(directory, 'worker.mjs');
  await writeFile(workerMain, OBEDIENT_WORKER);
  const first = 40_000 + Math.floor(Math.random() * 5000);
  const launcher = new LocalJobLauncher({
    directory: path.join(directory, 'jobs'),
    workerMain,
    workerEnvironment: {},
    maxRunning: SUITE_LIMITS.maxRunning,
    ports: { first, last: first + SUITE_LIMITS.ports - 1 },
    listenAddress: '127.0.0.1',
    host: '127.0.0.1',
    findLocalFile: async () => null,
  });
  await launcher.sweep();
  return {
    launcher,
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

/** How many processes of this machine have both words in their command line. */
async function processesWith(...words: string[]): Promise<number> {
  const pids = (await readdir('/proc')).filter((name) => /^\d+$/.test(name));
  const commands = await Promise.all(pids.map((pid) => readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '')));
  return commands.filter((command) => words.every((word) => command.includes(word))).length;
}
