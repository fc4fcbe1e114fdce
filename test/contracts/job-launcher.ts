import { buffer } from 'node:stream/consumers';
import { type JobLauncher, LaunchRefused, NotYet } from '../../src/jobs/launcher/job-launcher.js';
import type { CustomizeSpec } from '../../src/protocol/job-spec.js';
import { aJobSpec } from '../support/job-spec.js';
import { until } from '../support/system.js';

/** A launcher, and how the jobs that it runs are told what to do. Where it has limits, three of them run at once, on two ports more. */
export interface LauncherUnderTest {
  launcher: JobLauncher;
  /** Has the shell of a job print a text. */
  print(jobId: string, text: string): Promise<void>;
  /** Has a job end well, or not. */
  end(jobId: string, how: 'well' | 'badly'): Promise<void>;
  close(): Promise<void>;
}

/** How many jobs of the suite's launchers run at once, and how many ports they have. */
export const SUITE_LIMITS = { maxRunning: 3, ports: 5 };
const SHELL = 'sshd';

/** The contract of the port JobLauncher: every adapter and every double passes it. */
export function describeJobLauncher(
  name: string,
  open: () => Promise<LauncherUnderTest>,
  { hasLimits = true, endsWithServer = true }: { hasLimits?: boolean; endsWithServer?: boolean } = {},
): void {
  const itWithLimits = hasLimits ? it : it.skip;
  describe(`the contract of JobLauncher: ${name}`, () => {
    let under: LauncherUnderTest;
    let launcher: JobLauncher;
    let changes: number;

    beforeEach(async () => {
      under = await open();
      launcher = under.launcher;
      changes = 0;
      launcher.watch(() => void changes++);
    });
    afterEach(async () => {
      for (const jobId of await launcher.list()) await removed(jobId);
      await under.close();
    });

    /** Callers ask again where it takes longer, and nothing else may come of it. */
    const removed = (jobId: string) =>
      until('it is removed', () =>
        launcher.remove(jobId).then(
          () => true,
          (error: unknown) => {
            if (error instanceof NotYet) return false;
            throw error;
          },
        ),
      );

    async function launched(): Promise<CustomizeSpec> {
      const spec = aJobSpec();
      const { port } = (await launcher.address(spec.job_id)).customer_access;
      const whole = { ...spec, shell: { ...spec.shell, port } };
      await launcher.launch(whole);
      return whole;
    }

    const stateOf = async (jobId: string) => (await launcher.observe(jobId)).state;
    const isIn = (jobId: string, state: string) => until(state, async () => (await stateOf(jobId)) === state, 20);
    const logOf = async (jobId: string, from = 0) => (await buffer(launcher.log(jobId, SHELL, from, null))).toString();

    it('is ready', () => launcher.ready());

    it('knows nothing of a job that it never saw', async () => {
      const { job_id } = aJobSpec();
      expect(await stateOf(job_id)).toBe('absent');
      expect(await launcher.list()).not.toContain(job_id);
      expect(await logOf(job_id)).toBe('');
      await launcher.release(job_id);
      await launcher.remove(job_id);
    });

    it('keeps the address of a job until it is released or removed', async () => {
      const [one, other] = [aJobSpec().job_id, aJobSpec().job_id];
      const address = await launcher.address(one);
      expect(await launcher.address(one)).toEqual(address);
      expect((await launcher.address(other)).customer_access).not.toEqual(address.customer_access);
    });

    itWithLimits(
      'refuses a job where no address is free, and has one again when a job lets go of its own',
      async () => {
        const ids = Array.from({ length: SUITE_LIMITS.ports }, () => aJobSpec().job_id);
        for (const id of ids) await launcher.address(id);
        await expect(launcher.address(aJobSpec().job_id)).rejects.toThrow(LaunchRefused);
        await launcher.remove(ids[0]!);
        await launcher.address(aJobSpec().job_id);
        await launcher.release(ids[1]!);
        await launcher.address(aJobSpec().job_id);
      },
    );

    it('launches a job once, however often it is asked to', async () => {
      const spec = await launched();
      await launcher.launch(spec);
      expect(await stateOf(spec.job_id)).toBe('running');
      expect(await launcher.list()).toEqual([spec.job_id]);
      expect(await launcher.free()).toBe(hasLimits ? SUITE_LIMITS.maxRunning - 1 : Infinity);
    });

    it('launches a job once, also when it is asked to twice at once', async () => {
      const spec = aJobSpec();
      await Promise.all([launcher.launch(spec), launcher.launch(spec)]);
      expect(await launcher.list()).toEqual([spec.job_id]);
      expect(await launcher.free()).toBe(hasLimits ? SUITE_LIMITS.maxRunning - 1 : Infinity);
      await under.end(spec.job_id, 'well');
      await isIn(spec.job_id, 'ended');
    });

    it('launches nothing any more when the server stops, and ends what cannot run without it', async () => {
      const { job_id } = await launched();
      await launcher.stop();
      if (endsWithServer) expect(await stateOf(job_id)).not.toBe('running');
      const late = aJobSpec();
      const refusal = await launcher.launch(late).catch((error: unknown) => error);
      // Not for good: a later server tries again.
      expect(refusal).toBeInstanceOf(Error);
      expect(refusal).not.toBeInstanceOf(LaunchRefused);
      expect(await stateOf(late.job_id)).toBe('absent');
      expect(await launcher.list()).not.toContain(late.job_id);
    });

    itWithLimits('tells how many more jobs may run', async () => {
      const specs = [await launched(), await launched(), await launched()];
      expect(await launcher.free()).toBe(0);
      await under.end(specs[0]!.job_id, 'well');
      await isIn(specs[0]!.job_id, 'ended');
      expect(await launcher.free()).toBe(1);
      const launching = launcher.launch(aJobSpec());
      expect(await launcher.free()).toBe(0);
      await launching;
    });

    it('tells that a job has ended well, and calls the listener', async () => {
      const { job_id } = await launched();
      const before = changes;
      await under.end(job_id, 'well');
      await isIn(job_id, 'ended');
      expect(await launcher.observe(job_id)).toEqual({ state: 'ended', reason: null });
      expect(changes).toBeGreaterThan(before);
    });

    it('tells in a sentence why a job has ended badly', async () => {
      const { job_id } = await launched();
      await under.end(job_id, 'badly');
      await isIn(job_id, 'ended');
      expect(await launcher.observe(job_id)).toEqual({ state: 'ended', reason: expect.stringMatching(/\w+ \w+/) });
    });

    it('shows what a job prints, from any byte on', async () => {
      const { job_id } = await launched();
      await under.print(job_id, 'one\ntwo\n');
      await until('it is printed', async () => (await logOf(job_id)) === 'one\ntwo\n');
      expect(await logOf(job_id, 4)).toBe('two\n');
      expect(await logOf(job_id, 8)).toBe('');
      expect(await logOf(job_id, 100)).toBe('');
      expect((await buffer(launcher.log(job_id, 'none', 0, null))).length).toBe(0);
    });

    it('follows what a job prints to its end', async () => {
      const { job_id } = await launched();
      await under.print(job_id, 'one\n');
      const followed = buffer(launcher.log(job_id, SHELL, 0, new AbortController().signal));
      await until('it is printed', async () => (await logOf(job_id)) === 'one\n');
      await under.print(job_id, 'two\n');
      await until('it is printed', async () => (await logOf(job_id)) === 'one\ntwo\n');
      await under.end(job_id, 'well');
      expect((await followed).toString()).toBe('one\ntwo\n');
    });

    it('follows no longer than somebody listens', async () => {
      const { job_id } = await launched();
      const abort = new AbortController();
      const followed = buffer(launcher.log(job_id, SHELL, 0, abort.signal));
      abort.abort();
      await followed;
      expect(await stateOf(job_id)).toBe('running');
    });

    it('ends what runs when it releases a job, and keeps its log', async () => {
      const { job_id } = await launched();
      await under.print(job_id, 'last words\n');
      await until('they are printed', async () => (await logOf(job_id)) === 'last words\n');
      await launcher.release(job_id);
      await launcher.release(job_id);
      expect(await stateOf(job_id)).not.toBe('running');
      expect(await logOf(job_id)).toBe('last words\n');
      expect(await launcher.list()).toContain(job_id);
    });

    it('leaves nothing of a job that it removes, whatever became of it', async () => {
      const [running, ended, released] = [await launched(), await launched(), await launched()].map(
        (spec) => spec.job_id,
      );
      await under.end(ended!, 'badly');
      await isIn(ended!, 'ended');
      await launcher.release(released!);
      for (const jobId of [running!, ended!, released!, running!]) await removed(jobId);
      expect(await launcher.list()).toEqual([]);
      expect(await Promise.all([running!, ended!, released!].map(stateOf))).toEqual(['absent', 'absent', 'absent']);
      expect(await launcher.free()).toBe(hasLimits ? SUITE_LIMITS.maxRunning : Infinity);
    });
  });
}
