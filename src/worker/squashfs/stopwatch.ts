/** Parts of the work of packing, in their order. */
export const STAGES = ['tables', 'compare', 'copy', 'compress', 'metadata'] as const;
export type Stage = (typeof STAGES)[number];

/** Adds up how long stages take. Some run beside each other. */
export class Stopwatch {
  readonly seconds: Record<Stage, number> = { tables: 0, compare: 0, copy: 0, compress: 0, metadata: 0 };

  /** Times an action; one that fails does not count. */
  async time<Result>(stage: Stage, action: () => Promise<Result>): Promise<Result> {
    const started = performance.now();
    const result = await action();
    this.add(stage, started);
    return result;
  }

  /** @param started as `performance.now()` told it */
  add(stage: Stage, started: number): void {
    this.seconds[stage] += (performance.now() - started) / 1000;
  }
}
