import { readdirSync, readFileSync } from 'node:fs';
import { BuildSite } from '../support/build-site.js';
import { type System, until } from '../support/system.js';

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

it('a server that is killed at any moment of a build leaves nothing after its next start', async () => {
  for (const delay of [300, 900, 1500, 2100]) {
    const artifacts = await system.artifacts();
    const { id } = await site.startJob(quickRecipeId);
    await new Promise((resolve) => setTimeout(resolve, delay * (1 + Math.random())));
    await system.killServer();
    await system.startServer();
    await until('the job has ended', async () => ['error', 'success'].includes((await system.api.job(id)).status), 90);
    const { status, status_reason } = await system.api.job(id);
    if (status === 'error') expect(status_reason).toMatch(/the server was stopped while this job ran/);
    if (status === 'error')
      await until('the store is as it was', async () => String(await system.artifacts()) === String(artifacts));
    await system.api.request('DELETE', `/jobs/${id}`);
    await system.expectNoTraces(id);
  }
}, 300_000);

it('a build after all of that works', async () => {
  const { id } = await site.startJob(quickRecipeId);
  await system.waitFor(id, 'success', 120);
}, 180_000);
