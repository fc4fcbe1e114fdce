import type { JobProgress } from '../../protocol/job-report.js';
import type { CreateSpec } from '../../protocol/job-spec.js';
import { JobIsOver } from '../ims-client.js';
import { JobFailure } from '../job-failure.js';
import type { PhaseContext } from '../phases/phase.js';
import { CONFINED } from './build-place.js';

/** Milliseconds between two looks at the disk. */
const DISK_INTERVAL = 2000;
/** Milliseconds between two reports of progress. */
const PROGRESS_INTERVAL = 1000;
/** Milliseconds after which the server is asked whether the job still goes on, where there is no progress to tell. */
const LOOK_INTERVAL = 10_000;

/** Ends what runs of a build when the job is over, the disk is full, or it takes too long, and tells how far it is. */
export class BuildGuard {
  private readonly abort = new AbortController();
  private readonly timers: NodeJS.Timeout[];
  private latest: JobProgress | null = null;
  private asking = false;
  private asked = Date.now();

  constructor(private readonly context: PhaseContext<CreateSpec>) {
    const { disk, job } = context;
    const end = (error: unknown) => this.abort.abort(error);
    this.timers = [
      setInterval(() => void disk.expectFree(0).catch(end), DISK_INTERVAL),
      setInterval(() => void this.tell().catch(end), PROGRESS_INTERVAL),
      ...(job.buildSeconds ? [setTimeout(() => end(tooLong(job.buildSeconds)), job.buildSeconds * 1000)] : []),
    ];
  }

  /** Is aborted when the build has to end. */
  get signal(): AbortSignal {
    return this.abort.signal;
  }

  report(progress: JobProgress): void {
    this.latest = progress;
  }

  /**
   * Runs a program of the new root to its end, as scripts of the recipe are run.
   * @throws CommandFailed, CommandMissing, or what ended the build
   */
  async run(program: readonly string[]): Promise<void> {
    try {
      await this.context.commands.run('unshare', [...CONFINED, ...program], { signal: this.signal });
    } finally {
      this.throwIfAborted();
    }
  }

  /** @throws JobFailure, JobIsOver: what ended the build */
  throwIfAborted(): void {
    const reason: unknown = this.signal.reason;
    if (this.signal.aborted) throw reason instanceof Error ? reason : new JobIsOver();
  }

  close(): void {
    for (const timer of this.timers) clearTimeout(timer);
  }

  /** Only the latest is told, one at a time; the server is asked in any case whether the job still goes on. */
  private async tell(): Promise<void> {
    const progress = this.latest;
    if (this.asking || (!progress && Date.now() - this.asked < LOOK_INTERVAL)) return;
    this.asking = true;
    this.latest = null;
    try {
      await (progress ? this.context.ims.reportProgress(progress) : this.context.ims.lookAtJob());
    } finally {
      this.asking = false;
      this.asked = Date.now();
    }
  }
}

function tooLong(seconds: number): JobFailure {
  return new JobFailure(
    `the build took longer than ${seconds} s, and was ended: raise JOB_BUILD_SECONDS where builds take that long, or make the recipe quicker`,
  );
}
