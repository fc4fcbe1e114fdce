import { readdirSync, readFileSync } from 'node:fs';
import { BuildSite } from '../support/build-site.js';
import { sleep, type System, until } from '../support/system.js';

/** Sleeps in the middle of a build, with a mount and a process of its own. */
const LINGERING = {
  'config.sh': '#!/bin/sh\nmkdir /mounted && mount -t tmpfs none /mounted\nsleep 987 &\nsleep 986\n',
};

let site: BuildSite;
let system: System;
let recipeId: string;
let quickRecipeId: string;

beforeAll(async () => {
  site = await BuildSite.start();
  ({ system } = site);
  recipeId = await site.addRecipe({ files: LINGERING });
  quickRecipeId = await site.addRecipe();
}, 240_000);
afterAll(() => site.stop());

/** Pids of processes whose command line has these words, and which belong to the job. */
function processesOf(jobId: string, ...words: string[]): number[] {
  const read = (pid: string, name: string) => {
    try {
      return readFileSync(`/proc/${pid}/${name}`, 'utf8');
    } catch {
      return '';
    }
  };
  return readdirSync('/proc')
    .filter((pid) => /^\d+$/.test(pid))
    .filter((pid) => {
      const command = read(pid, 'cmdline').split('\0');
      const belongs = read(pid, 'cmdline').includes(jobId) || read(pid, 'mountinfo').includes(jobId);
      return belongs && words.every((word) => command.some((argument) => argument.includes(word)));
    })
    .map(Number);
}

/** A job in whose build a script sleeps. */
async function jobInScript(more: object = {}): Promise<string> {
  const { id } = await site.startJob(recipeId, more);
  await until('the script sleeps', async () => processesOf(id, 'sleep', '986').length > 0, 60).catch(
    async (error: Error) => {
      throw new Error(`${error.message}\n${await system.jobLog(id)}`);
    },
  );
  return id;
}

async function expectCleanEnd(id: string, artifacts: string[], reason: RegExp): Promise<void> {
  const job = await system.waitFor(id, 'error');
  expect(job.status_reason).toMatch(reason);
  expect(job.resultant_image_id).toBeNull();
  await until('nothing runs of it', async () => processesOf(id).length === 0);
  expect(await system.artifacts()).toEqual(artifacts);
  await system.api.request('DELETE', `/jobs/${id}`);
  await system.expectNoTraces(id);
}

const KILLED: [what: string, words: string[], reason: RegExp][] = [
  [
    'the worker',
    [process.execPath, 'build-image'],
    /the phase build-image ended before it could say why: it was killed/,
  ],
  ['KIWI-NG', ['kiwi.kiwi', 'system', 'build'], /the image could not be built: KIWI-NG ended with SIGKILL/],
];

it.each(KILLED)(
  'a build whose script sleeps ends with a reason where %s is killed',
  async (_what, words, reason) => {
    const artifacts = await system.artifacts();
    const id = await jobInScript();
    const pids = processesOf(id, ...words);
    expect(pids.length).toBeGreaterThan(0);
    for (const pid of pids) process.kill(pid, 'SIGKILL');
    await expectCleanEnd(id, artifacts, reason);
  },
  120_000,
);

it('a build ends with the server that is killed, and the next start says so', async () => {
  const artifacts = await system.artifacts();
  const id = await jobInScript();
  await system.killServer();
  await until('nothing runs of it', async () => processesOf(id).length === 0);
  await system.startServer();
  await expectCleanEnd(id, artifacts, /the server was stopped while this job ran/);
}, 120_000);

it('a job that is deleted takes its build with it', async () => {
  const id = await jobInScript();
  await system.api.request('DELETE', `/jobs/${id}`);
  await system.expectNoTraces(id);
}, 120_000);

const SEED = Number(process.env['CRASH_SEED'] ?? Date.now() % 1_000_000);
/** How often each is killed. */
const ROUNDS = Number(process.env['CRASH_ROUNDS'] ?? 3);

/** Numbers between 0 and 1 that look random, the same for the same seed (a linear congruence, as POSIX shows for rand). */
function* fractions(seed: number): Generator<number, never, void> {
  for (let state = seed; ;) {
    state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0;
    yield (state >>> 8) / 2 ** 24;
  }
}

describe(`at any moment of build-image (CRASH_SEED=${SEED})`, () => {
  const random = fractions(SEED);
  /** Milliseconds that a build takes. */
  let duration: number;

  beforeAll(async () => {
    const id = await building();
    const begin = Date.now();
    await until('it is built', async () => (await system.api.job(id)).status === 'packaging_artifacts', 60);
    duration = Date.now() - begin;
    await system.waitFor(id, 'success');
  }, 120_000);

  /** A job whose build has just begun. */
  async function building(): Promise<string> {
    const { id } = await site.startJob(quickRecipeId);
    await until('it builds', async () => (await system.api.job(id)).status === 'building_image', 60);
    return id;
  }

  /** Kills what is there of a job; returns how many processes that were. */
  function killProcesses(id: string, words: string[]): number {
    const pids = processesOf(id, ...words);
    for (const pid of pids) process.kill(pid, 'SIGKILL');
    return pids.length;
  }

  it.each<[what: string, kill: (id: string) => Promise<number>]>([
    [
      'the server',
      async () => {
        await system.killServer();
        return 1;
      },
    ],
    ...KILLED.map<[string, (id: string) => Promise<number>]>(([what, words]) => [
      what,
      async (id) => {
        const killed = killProcesses(id, words);
        // What is left is found by the next start, whatever the server that runs has seen of it.
        await system.killServer();
        return killed;
      },
    ]),
  ])(
    'a kill of %s leaves nothing after the next start',
    async (_what, kill) => {
      let killed = 0;
      for (let round = 0; round < ROUNDS; round++) {
        const artifacts = await system.artifacts();
        const id = await building();
        await sleep(random.next().value * duration);
        killed += await kill(id);
        await system.startServer();
        await until('the job has ended', async () => ['error', 'success'].includes((await system.api.job(id)).status));
        const { status, status_reason } = await system.api.job(id);
        if (status === 'error') {
          expect(status_reason).toMatch(
            /^(the server was stopped while this job ran|the phase build-image ended before it could say why|the image could not be built: )/,
          );
          await until('the store is as it was', async () => String(await system.artifacts()) === String(artifacts));
        }
        await system.api.request('DELETE', `/jobs/${id}`);
        await system.expectNoTraces(id);
      }
      expect(killed).toBeGreaterThan(0);
    },
    300_000,
  );
});

it('a build after all of that works', async () => {
  const { id } = await site.startJob(quickRecipeId);
  await system.waitFor(id, 'success', 120);
}, 180_000);
