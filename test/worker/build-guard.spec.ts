import { jest } from '@jest/globals';
import type { JobProgress } from '../../src/protocol/job-report.js';
import type { CreateSpec } from '../../src/protocol/job-spec.js';
import { SystemCommands } from '../../src/worker/commands.js';
import { JobIsOver } from '../../src/worker/ims-client.js';
import { JobFailure } from '../../src/worker/job-failure.js';
import { BuildGuard } from '../../src/worker/kiwi/build-guard.js';
import type { PhaseContext } from '../../src/worker/phases/phase.js';
import { aCreateSpec } from '../support/job-spec.js';

let told: JobProgress[];
/** What the server answers, and what is found of the disk. */
let look: () => Promise<void>;
let expectFree: () => Promise<void>;
let guard: BuildGuard;

function watch(job: Partial<CreateSpec> = {}): BuildGuard {
  told = [];
  const ims = {
    reportProgress: async (progress: JobProgress) => void told.push(progress),
    lookAtJob: () => look(),
  };
  const context = {
    job: aCreateSpec(job),
    commands: new SystemCommands(),
    disk: { expectFree: () => expectFree() },
    ims,
  };
  return (guard = new BuildGuard(context as unknown as PhaseContext<CreateSpec>));
}

beforeEach(() => {
  look = async () => {};
  expectFree = async () => {};
});
afterEach(() => {
  guard.close();
  jest.useRealTimers();
});

describe('a build', () => {
  it('ends when it takes too long, with all that it runs', async () => {
    watch({ buildSeconds: 1 });
    const begin = Date.now();
    await expect(guard.run(['sh', '-c', 'sleep 60 & sleep 60'])).rejects.toThrow(
      'the build took longer than 1 s, and was ended: raise JOB_BUILD_SECONDS',
    );
    expect(Date.now() - begin).toBeLessThan(20_000);
  }, 30_000);

  it('runs programs of the new root without what no build needs', async () => {
    watch();
    // CAP_SYS_MODULE is the sixteenth, CAP_SYS_BOOT the twenty-second.
    const check = 'set -- $(grep CapBnd /proc/self/status); [ $((0x$2 >> 16 & 1)) = 0 ] && [ $((0x$2 >> 22 & 1)) = 0 ]';
    await guard.run(['sh', '-c', check]);
  });

  it('ends when the job is over, though it has nothing to tell', async () => {
    jest.useFakeTimers();
    watch();
    look = async () => {
      throw new JobIsOver();
    };
    await jest.advanceTimersByTimeAsync(9000);
    expect(guard.signal.aborted).toBe(false);
    await jest.advanceTimersByTimeAsync(3000);
    expect(() => guard.throwIfAborted()).toThrow(JobIsOver);
  });

  it('ends when the disk is full', async () => {
    jest.useFakeTimers();
    watch();
    expectFree = async () => {
      throw new JobFailure('the disk is full');
    };
    await jest.advanceTimersByTimeAsync(2500);
    expect(() => guard.throwIfAborted()).toThrow('the disk is full');
  });

  it('tells the latest of how far it is, once a second', async () => {
    jest.useFakeTimers();
    watch();
    for (let done = 0; done < 30; done++) {
      guard.report({ stage: 'install', done, total: 30 });
      await jest.advanceTimersByTimeAsync(100);
    }
    expect(told.map(({ done }) => done)).toEqual([9, 19, 29]);
    await jest.advanceTimersByTimeAsync(60_000);
    expect(told).toHaveLength(3);
    guard.throwIfAborted();
  });
});
