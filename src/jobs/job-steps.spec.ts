import { setTimeout as sleep } from 'node:timers/promises';
import { JobSteps } from './job-steps.js';

const JOBS = Array.from({ length: 20 }, (_, index) => ({ id: `job ${index}` }));
const always = () => true;

describe('JobSteps', () => {
  it('takes a step for each job, the first first, eight at once', async () => {
    const begun: string[] = [];
    let [going, most] = [0, 0];
    const step = async ({ id }: { id: string }) => {
      begun.push(id);
      most = Math.max(most, ++going);
      await sleep(5);
      going--;
    };
    expect(await new JobSteps().take('look', JOBS, step, always)).toBe(true);
    expect([begun, most, going]).toEqual([JOBS.map(({ id }) => id), 8, 0]);
  });

  it('waits for none that takes long, begins it once only, and begins next time with those whose turn did not come', async () => {
    const steps = new JobSteps();
    let begun: string[] = [];
    let answer = () => {};
    const silence = new Promise<void>((resolve) => (answer = resolve));
    const step = ({ id }: { id: string }) => {
      begun.push(id);
      return silence;
    };
    const turns = async () => {
      begun = [];
      const hadTheirTurn = await steps.take('look', JOBS, step, always);
      return [hadTheirTurn, begun.map((id) => Number(id.slice(4)))];
    };
    expect(await turns()).toEqual([false, [0, 1, 2, 3, 4, 5, 6, 7]]);
    expect(await turns()).toEqual([false, [8, 9, 10, 11, 12, 13, 14, 15]]);
    answer();
    await steps.settle(1000);
    expect(await turns()).toEqual([true, [16, 17, 18, 19, ...Array.from({ length: 16 }, (_, index) => index)]]);
  }, 20_000);

  it('begins nothing where it may not go on', async () => {
    const begun: string[] = [];
    const step = async ({ id }: { id: string }) => void begun.push(id);
    expect(await new JobSteps().take('look', JOBS, step, () => begun.length < 3)).toBe(false);
    expect(begun).toHaveLength(3);
  });
});
