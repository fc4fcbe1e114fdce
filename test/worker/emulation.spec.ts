import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import type { JobSpec } from '../../src/protocol/job-spec.js';
import { SystemCommands } from '../../src/worker/commands.js';
import { providePrograms, runsProgramsOf } from '../../src/worker/emulation.js';
import { findObstacle } from '../support/emulation.js';
import { aCreateSpec, aJobSpec } from '../support/job-spec.js';

const obstacle = findObstacle();
if (obstacle) console.warn(`programs of another architecture are not tested: ${obstacle}`);

let directory: string;
beforeEach(async () => {
  directory = await mkdtemp(path.join(tmpdir(), 'ims-programs-'));
});
afterEach(async () => {
  const left = await readdir(directory);
  await rm(directory, { recursive: true });
  expect(left).toEqual([]);
});

const jailed = { name: 'a', jail: true, listenAddress: '127.0.0.1', port: 20_000 };
const provide = (job: JobSpec, emulation = false) =>
  providePrograms(job.job_type === 'create' ? 'fetch-recipe' : 'fetch-image', job, {
    emulation,
    directory,
    commands: new SystemCommands(),
  });

it("programs of the machine's own kind run", async () => {
  const arch = process.arch === 'x64' ? 'x86_64' : 'aarch64';
  await provide(aCreateSpec({ arch }));
  expect(await runsProgramsOf(arch, { emulation: false, directory, commands: new SystemCommands() })).toBe(true);
});

(obstacle ? describe.skip : describe)('on a machine that runs no programs of aarch64', () => {
  it.each<[what: string, job: JobSpec]>([
    ['a build', aCreateSpec({ arch: 'aarch64' })],
    ['a jailed shell', aJobSpec({ arch: 'aarch64', shell: jailed })],
  ])('%s ends in its first phase, and says what to change', async (_what, job) => {
    await expect(provide(job)).rejects.toThrow(
      'programs of aarch64 do not run on the machine that the job is on: use one of that architecture, or set JOB_EMULATION=true, which registers qemu-user for it',
    );
  });

  it('a shell without a jail runs programs of its own', async () => {
    await provide(aJobSpec({ arch: 'aarch64' }));
  });

  it('a job that may register an emulator goes on to the phase that does', async () => {
    await provide(aCreateSpec({ arch: 'aarch64' }), true);
  });
});
