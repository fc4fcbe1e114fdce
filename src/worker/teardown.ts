/** What has been made and must be undone, the last first. */
export class Teardown {
  private readonly steps: (() => unknown)[] = [];

  /** Remembers how to undo what was just done. */
  add(step: () => unknown): void {
    this.steps.push(step);
  }

  /**
   * Undoes everything, in reverse. A step that fails does not keep the others from being done; the first error is thrown in the end.
   * Safe to repeat.
   */
  async run(): Promise<void> {
    const errors: unknown[] = [];
    for (let step = this.steps.pop(); step; step = this.steps.pop()) {
      try {
        await step();
      } catch (error) {
        errors.push(error);
      }
    }
    if (errors.length) throw errors[0];
  }
}
