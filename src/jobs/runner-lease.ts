import type { DataSource } from 'typeorm';

/** Seconds for which a server works alone on the jobs of its runner, without saying so again. */
const LEASE_SECONDS = 15;
/** Part of the lease for which the server itself counts on it: it must have stopped before another one begins. */
const TRUSTED = 2 / 3;

/**
 * Which server works on the jobs of a runner. A launcher may serve several servers, as that of a cluster does: two that work on the same jobs
 * at once would take for dead what the other is just about to launch. The others wait, and one goes on when the first has stopped.
 */
export class RunnerLease {
  private trustedUntil = 0;

  /**
   * @param holder names this server among those of the runner; one that keeps its name through a restart need not wait for its own lease
   */
  constructor(
    private readonly database: DataSource,
    readonly runner: string,
    private readonly holder: string,
    private readonly seconds = LEASE_SECONDS,
  ) {}

  /** Whether this server may work: by a clock of its own, since that of the database is not asked before each step. */
  get isHeld(): boolean {
    return performance.now() < this.trustedUntil;
  }

  /** Takes or extends the lease, where no other server has it. */
  async hold(): Promise<boolean> {
    const asked = performance.now();
    const rows: unknown[] = await this.database.query(
      `WITH held AS (
        INSERT INTO runner_leases AS l (runner, holder, lease_until) VALUES ($1, $2, now() + make_interval(secs => $3))
        ON CONFLICT (runner) DO UPDATE SET holder = excluded.holder, lease_until = excluded.lease_until
        WHERE l.holder = excluded.holder OR l.lease_until < now() RETURNING 1)
      SELECT 1 FROM held`,
      [this.runner, this.holder, this.seconds],
    );
    this.trustedUntil = rows.length ? asked + this.seconds * 1000 * TRUSTED : 0;
    return rows.length > 0;
  }

  /** Lets another server go on at once. */
  async giveUp(): Promise<void> {
    this.trustedUntil = 0;
    await this.database.query('DELETE FROM runner_leases WHERE runner = $1 AND holder = $2', [
      this.runner,
      this.holder,
    ]);
  }
}
