import { readFile } from 'node:fs/promises';
import { Inject, Injectable, Logger, type OnApplicationShutdown } from '@nestjs/common';
import { InjectRepository } from '@nestjs/typeorm';
import { In, IsNull, Not, Repository } from 'typeorm';
import type { Config } from '../config/config.js';
import { CONFIG } from '../config/config.module.js';
import { HalfMadeImages } from './half-made-images.js';
import { JobLogs } from './job-logs.js';
import { IMPORTED, Job } from './job.entity.js';
import { launchSpec } from './launch-spec.js';
import { JobLauncher, LaunchRefused } from './launcher/job-launcher.js';

/** Milliseconds between two looks when nothing wakes the reconciler. */
const INTERVAL = 2000;
/** Seconds for which a server answers for its jobs without saying so again. */
const LEASE_SECONDS = 60;
/** Milliseconds that a worker gets, after its last report, to write its log and end by itself. */
const LAST_WORDS = 10_000;

/** Which launcher of all servers on a database is this server's: jobs are bound to theirs. */
export const RUNNER = Symbol('runner');

/**
 * Compares job records with what really runs, again and again, and moves each towards where it has to be: launches what waits, ends what
 * died with a reason, gives back what ended jobs hold, removes what deleted jobs left. It decides from the state that it finds and keeps
 * none of its own, so that a crash between any two steps costs nothing but the next look.
 */
@Injectable()
export class JobReconciler implements OnApplicationShutdown {
  private readonly log = new Logger(JobReconciler.name);
  private serverUrl: string | null = null;
  private running: Promise<void> | null = null;
  private stopped = false;
  private rouse: () => void = () => {};
  private roused = false;

  constructor(
    @InjectRepository(Job) private readonly jobs: Repository<Job>,
    private readonly launcher: JobLauncher,
    private readonly halfMadeImages: HalfMadeImages,
    private readonly logs: JobLogs,
    @Inject(CONFIG) private readonly config: Config,
    @Inject(RUNNER) private readonly runner: string,
  ) {}

  /** Begins to look. Called when the server listens: workers report to `serverUrl`. */
  start(serverUrl: string): void {
    this.serverUrl = serverUrl;
    this.launcher.watch(() => this.wake());
    this.running ??= this.run();
  }

  /** Looks again soon, since something has changed. */
  wake(): void {
    this.roused = true;
    this.rouse();
  }

  async onApplicationShutdown(): Promise<void> {
    this.stopped = true;
    this.rouse();
    await this.running;
    await this.launcher.stop();
  }

  private async run(): Promise<void> {
    while (!this.stopped) {
      this.roused = false;
      await this.pass();
      if (!this.roused && !this.stopped) await this.sleep();
    }
  }

  private async sleep(): Promise<void> {
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, INTERVAL);
      this.rouse = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }

  /** One look at everything. A step that fails is tried again with the next look, and does not keep the others from theirs. */
  async pass(): Promise<void> {
    await this.attempt('extend the lease', () => this.extendLease());
    await this.forEach({ deleted: Not(IsNull()), runner: In([this.runner, IMPORTED]) }, 'remove', (job) =>
      this.remove(job),
    );
    await this.forEach({ launched: Not(IsNull()), ended: IsNull() }, 'observe', (job) => this.endIfDead(job));
    await this.forEach({ ended: Not(IsNull()), released: IsNull() }, 'release', (job) => this.release(job));
    await this.forEach({ launched: IsNull(), ended: IsNull() }, 'launch', (job) => this.launchIfFree(job));
    await this.attempt('end abandoned jobs', () => this.endAbandoned());
    await this.attempt('delete jobs that were kept long enough', () => this.deleteKept());
    await this.attempt('remove what no job owns', () => this.removeUnowned());
  }

  private async attempt(what: string, step: () => Promise<unknown>, facts: object = {}): Promise<void> {
    try {
      await step();
    } catch (error) {
      this.log.error(error, `could not ${what}; trying again`, facts);
    }
  }

  private async forEach(where: object, what: string, step: (job: Job) => Promise<unknown>): Promise<void> {
    await this.attempt(what, async () => {
      const jobs = await this.jobs.find({
        where: { deleted: IsNull(), runner: this.runner, ...where },
        order: { created: 'ASC' },
      });
      for (const job of jobs) if (!this.stopped) await this.attempt(what, () => step(job), { job_id: job.id });
    });
  }

  private async remove(job: Job): Promise<void> {
    await this.launcher.remove(job.id);
    await this.logs.remove(job.id);
    await this.halfMadeImages.remove(job.id);
    await this.jobs.delete({ id: job.id });
    this.log.log('removed', { job_id: job.id });
  }

  private async endIfDead(job: Job): Promise<void> {
    const observation = await this.launcher.observe(job.id);
    if (observation.state === 'running') return;
    const reason = observation.state === 'ended' ? observation.reason : null;
    await this.end(job, reason ?? 'the job ended before it could say why. Its log tells more; start the job again.');
  }

  /** Ends a job whose worker said nothing of its end. Where it was done but for its last words, they are said for it. */
  private async end(job: Job, reason: string): Promise<void> {
    const image = await this.halfMadeImages.findFinished(job.id);
    const end = image
      ? ({ status: 'success', resultant_image_id: image } as const)
      : ({ status: 'error', status_reason: reason } as const);
    const { affected } = await this.jobs.update(
      { id: job.id, ended: IsNull() },
      { ...end, ended: new Date(), progress: null },
    );
    if (affected) this.log.log('ended', { job_id: job.id, ...end });
  }

  private async release(job: Job): Promise<void> {
    if (await this.isStillTalking(job)) return;
    await this.launcher.release(job.id);
    await this.logs.keep(job);
    await this.halfMadeImages.remove(job.id);
    await this.jobs.update(job.id, { released: new Date() });
  }

  private async isStillTalking(job: Job): Promise<boolean> {
    if (Date.now() - job.ended!.getTime() > LAST_WORDS) return false;
    return (await this.launcher.observe(job.id)).state === 'running';
  }

  private async launchIfFree(job: Job): Promise<void> {
    if ((await this.launcher.free()) === 0) return this.sayThatItWaits(job);
    const { affected } = await this.jobs.update(
      { id: job.id, launched: IsNull(), ended: IsNull(), deleted: IsNull() },
      { launched: new Date(), status_reason: null },
    );
    if (affected) await this.launch(job);
  }

  private async sayThatItWaits(job: Job): Promise<void> {
    const reason = `waits until another job ends: JOB_MAX_RUNNING lets ${this.config.jobs.local.maxRunning} run at once`;
    if (job.status_reason !== reason)
      await this.jobs.update({ id: job.id, launched: IsNull() }, { status_reason: reason });
  }

  private async launch(job: Job): Promise<void> {
    try {
      await this.launcher.launch(await this.specOf(job));
      this.log.log('launched', { job_id: job.id });
    } catch (error) {
      if (error instanceof LaunchRefused) return this.end(job, error.message);
      await this.jobs.update({ id: job.id, ended: IsNull() }, { launched: null });
      throw error;
    }
  }

  private async specOf(job: Job) {
    return launchSpec(
      job,
      {
        caCertificate: await this.readCaCertificate(),
        serverUrl: this.serverUrl!,
      },
      this.config,
    );
  }

  private async readCaCertificate(): Promise<string | null> {
    const file = this.config.jobs.caCertificateFile;
    if (!file) return null;
    return readFile(file, 'utf8').catch((error: NodeJS.ErrnoException) => {
      throw new LaunchRefused(
        `the certificate of the site CA cannot be read (${error.code}): set CA_CERT to a readable PEM file`,
      );
    });
  }

  private async extendLease(): Promise<void> {
    await this.jobs.query(
      `UPDATE jobs SET lease_until = now() + make_interval(secs => $2) WHERE runner = $1 AND ended IS NULL AND
       (lease_until IS NULL OR lease_until < now() + make_interval(secs => $2 / 2))`,
      [this.runner, LEASE_SECONDS],
    );
  }

  /** Jobs of a server that has not answered for them for a whole lease: it is gone, or cut off, and they with it. */
  private async endAbandoned(): Promise<void> {
    await this.jobs.query(
      `UPDATE jobs SET status = 'error', ended = now(), progress = NULL, status_reason = $2
       WHERE runner <> $1 AND ended IS NULL AND deleted IS NULL AND lease_until < now()`,
      [this.runner, 'the server that ran this job has stopped. Start the job again.'],
    );
  }

  /** Jobs of all runners: that of a job may be gone for good. */
  private async deleteKept(): Promise<void> {
    const { retentionSeconds } = this.config.jobs;
    if (!retentionSeconds) return;
    await this.jobs.query(
      `UPDATE jobs SET deleted = now() WHERE deleted IS NULL AND ended < now() - make_interval(secs => $1)`,
      [retentionSeconds],
    );
  }

  /** What the launcher holds of jobs that have no record (any more), as after a database was restored or replaced. */
  private async removeUnowned(): Promise<void> {
    for (const jobId of await this.launcher.list()) {
      if (await this.jobs.existsBy({ id: jobId }).catch(() => true)) continue;
      await this.launcher.remove(jobId);
      this.log.warn('removed what was left of a job without a record', { job_id: jobId });
    }
  }
}
