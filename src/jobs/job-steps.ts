/** How many steps of a kind begin at once. */
const AT_ONCE = 8;
/** Milliseconds that somebody waits for the steps that he takes. */
const PATIENCE = 2000;

/**
 * Steps of many jobs: some at once, one at a time for each job. A step that takes long goes on by itself, and is not begun again meanwhile.
 * So a job whose node does not answer stalls no other.
 */
export class JobSteps {
  /** What goes on, by job. It does not reject. */
  private readonly going = new Map<string, Promise<void>>();
  /** Jobs whose turn has not come, by the kind of step, in their order: they are the first the next time. */
  private readonly leftOut = new Map<string, readonly string[]>();

  /**
   * Takes a step of a kind for each job, in this order; none for a job of which a step goes on. Resolves when all have ended; where some take
   * longer than a moment, without them.
   * @param step must not reject
   * @param mayGoOn is asked before each
   * @returns whether the turn of each has come
   */
  async take<J extends { id: string }>(
    kind: string,
    jobs: readonly J[],
    step: (job: J) => Promise<void>,
    mayGoOn: () => boolean,
  ): Promise<boolean> {
    const turns = this.inTurn(kind, jobs);
    const patience = new AbortController();
    const work = async () => {
      while (turns.length && !patience.signal.aborted && mayGoOn()) await this.begin(turns.shift()!, step);
    };
    await waitFor(Array.from({ length: AT_ONCE }, work), PATIENCE);
    patience.abort();
    this.leftOut.set(
      kind,
      turns.map(({ id }) => id),
    );
    return turns.length === 0;
  }

  /** Resolves when no step goes on any more, or after some milliseconds. */
  settle(milliseconds: number): Promise<void> {
    return waitFor([...this.going.values()], milliseconds);
  }

  private inTurn<J extends { id: string }>(kind: string, jobs: readonly J[]): J[] {
    const places = new Map((this.leftOut.get(kind) ?? []).map((id, place) => [id, place]));
    const placeOf = ({ id }: J) => places.get(id) ?? places.size;
    return jobs.toSorted((one, other) => placeOf(one) - placeOf(other));
  }

  private async begin<J extends { id: string }>(job: J, step: (job: J) => Promise<void>): Promise<void> {
    if (this.going.has(job.id)) return;
    const going = step(job).finally(() => this.going.delete(job.id));
    this.going.set(job.id, going);
    await going;
  }
}

/** Resolves when all promises have, or after some milliseconds. */
async function waitFor(promises: readonly Promise<void>[], milliseconds: number): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const patience = new Promise<void>((resolve) => (timer = setTimeout(resolve, milliseconds)));
  await Promise.race([Promise.all(promises), patience]);
  clearTimeout(timer);
}
