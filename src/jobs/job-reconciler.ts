import { readFile } from 'node:fs/promises';
import { Inject, Injectable, Logger, type OnApplicationShutdown } from '@nestjs/common';
import { InjectRepository } from '@nestjs/typeorm';
import { type FindOptionsWhere, In, IsNull, LessThan, Not, Raw, Repository } from 'typeorm';
import type { Config } from '../config/config.js';
import { CONFIG } from '../config/config.module.js';
import { Notices } from '../database/notices.js';
import { HalfMadeImages } from './half-made-images.js';
import { JobLogs } from './job-logs.js';
import { LEASE_SECONDS } from './job-plan.js';
import { JobSteps } from './job-steps.js';
import { IMPORTED, Job } from './job.entity.js';
import { launchSpec } from './launch-spec.js';
import { JobLauncher, LaunchRefused, NotYet, type Observation } from './launcher/job-launcher.js';
import { RunnerLease } from './runner-lease.js';

/** Milliseconds between two looks when nothing wakes the reconciler. */
const INTERVAL = 2000;
/** Milliseconds between two extensions of leases, of which the shortest is one of seconds (`RunnerLease`). */
const EXTENSION = 3000;
/** Milliseconds that a worker gets, after its last report, to write its log and end by itself. */
const LAST_WORDS = 10_000;
/** Channel on which servers tell that something has changed; the payload is the runner. */
const CHANNEL = 'jobs_changed';
/** Milliseconds that a server which stops waits for the steps that it has begun. A cluster gives it half a minute in all. */
const LAST_STEPS = 10_000;
/**
 * Milliseconds that a worker gets to close a shell whose deadline has passed, or that was ended just then. The user of a shell can stop the
 * worker in its container, which may also hang.
 */
const CLOSING = 120_000;
/** Seconds after its lease ended from which on a runner is taken to be gone for good: a worker that is cut off gives up long before. */
const GONE_SECONDS = 3600;
/** What a record says of a job whose launch failed and is tried again. The cause, which may name hosts, is in the log. */
const NOT_YET = 'cannot be launched just now, and is tried again. /healthz/ready and the log of the server tell more.';
/** What a record says of a job that was launched, and of which nothing is there. */
const GONE =
  'what ran of the job was deleted, but not by this service (`kubectl delete`, for one). Start the job again.';
/** What a record says of a job that ended well where it ran, but not here. */
const SILENT = 'the job ended before it could say why. Its log tells more; start the job again.';

/** What a record says of a shell whose worker did not end it. */
const OVERDUE =
  'the deadline of the shell has passed, and the worker of the job did not end it: start the job again, and move its shell_deadline by PATCH or raise JOB_SHELL_SECONDS where that is too short';

/** Which launcher of all servers on a database is this server's: jobs are bound to theirs. */
export const RUNNER = Symbol('runner');

/**
 * Compares job records with what really runs, again and again, and moves each towards where it has to be: launches what waits, ends what
 * died with a reason, gives back what ended jobs hold, removes what deleted jobs left. It decides from the state that it finds and keeps
 * none of its own that matters, so that a crash between any two steps costs nothing but the next look.
 */
@Injectable()
export class JobReconciler implements OnApplicationShutdown {
  private readonly log = new Logger(JobReconciler.name);
  private serverUrl: string | null = null;
  private running: Promise<void> | null = null;
  private stopped = false;
  private rouse: () => void = () => {};
  private roused = false;
  private leaseTimer: NodeJS.Timeout | undefined;
  private readonly steps = new JobSteps();
  /** The steps that failed when they were last tried, with the error that was logged. */
  private readonly failing = new Map<string, string>();
  /** Since when (Unix time, ms) there are parts of a job that has no record, by its id. */
  private readonly unownedSince = new Map<string, number>();

  constructor(
    @InjectRepository(Job) private readonly jobs: Repository<Job>,
    private readonly launcher: JobLauncher,
    private readonly halfMadeImages: HalfMadeImages,
    private readonly logs: JobLogs,
    @Inject(CONFIG) private readonly config: Config,
    private readonly lease: RunnerLease,
    private readonly notices: Notices,
  ) {}

  private get runner(): string {
    return this.lease.runner;
  }

  /** Begins to look. Called when the server listens: workers report to `serverUrl`. */
  start(serverUrl: string): void {
    this.serverUrl = serverUrl;
    this.launcher.watch(() => this.lookSoon());
    // Not by passes: one that waits for a slow store must not cost the lease of all jobs.
    this.leaseTimer ??= setInterval(() => void this.holdLease(), EXTENSION);
    this.running ??= this.run();
  }

  /** Has the server that works on the jobs look again soon: this one, or another one. One that is not told looks a little later. */
  wake(): void {
    if (this.lease.isHeld) this.lookSoon();
    else void this.notices.tell(CHANNEL, this.runner).catch(() => {});
  }

  private lookSoon(): void {
    this.roused = true;
    this.rouse();
  }

  private readonly onNotice = (runner: string): void => {
    if (runner === this.runner) this.lookSoon();
  };

  async onApplicationShutdown(): Promise<void> {
    this.stopped = true;
    clearInterval(this.leaseTimer);
    this.rouse();
    await this.running;
    await this.steps.settle(LAST_STEPS);
    await this.launcher.stop();
    await this.attempt('give up the lease', () => this.lease.giveUp());
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

  /**
   * One look at everything, where no other server of the runner is at it. A step that fails is tried again with the next look; neither that
   * nor one that takes long keeps the others from theirs. What somebody waits for comes first.
   */
  async pass(): Promise<void> {
    await this.holdLease();
    await this.notices.listen(CHANNEL, this.onNotice);
    if (!this.lease.isHeld) return;
    await this.forEach({ launched: Not(IsNull()), ended: IsNull() }, 'observe', (job) => this.endIfDead(job));
    await this.attempt('launch', () => this.launchWaiting());
    await this.forEach({ ended: Not(IsNull()), released: IsNull() }, 'release', (job) => this.release(job));
    await this.forEach({ deleted: Not(IsNull()), runner: In([this.runner, IMPORTED]) }, 'remove', (job) =>
      this.remove(job),
    );
    await this.attempt('end abandoned jobs', () => this.endAbandoned());
    await this.attempt('delete jobs that were kept long enough', () => this.deleteKept());
    await this.attempt('clean up after runners that are gone', () => this.cleanUpAfterOthers());
    await this.attempt('remove what no job owns', () => this.removeUnowned());
  }

  /** Tries a step. What fails again and again is logged once for each cause, not every two seconds. */
  private async attempt(what: string, step: () => Promise<unknown>, facts: { job_id?: string } = {}): Promise<void> {
    const name = `${what} ${facts.job_id ?? ''}`;
    try {
      await step();
      this.failing.delete(name);
    } catch (error) {
      if (this.failing.get(name) !== String(error)) this.tell(error, what, facts);
      this.failing.set(name, String(error));
    }
  }

  private tell(error: unknown, what: string, facts: object): void {
    if (error instanceof NotYet) this.log.log(error.message, facts);
    else this.log.error(error, `could not ${what}; trying again`, facts);
  }

  private holdLease(): Promise<void> {
    return this.attempt('extend the lease', async () => {
      await this.extendLease();
      if (!this.stopped) await this.lease.hold();
    });
  }

  private async forEach(where: object, what: string, step: (job: Job) => Promise<unknown>): Promise<void> {
    await this.attempt(what, async () => {
      const jobs = await this.jobs.find({
        where: { deleted: IsNull(), runner: this.runner, ...where },
        order: { created: 'ASC' },
      });
      await this.take(jobs, what, step);
    });
  }

  private async take<J extends { id: string }>(
    jobs: readonly J[],
    what: string,
    step: (job: J) => Promise<unknown>,
  ): Promise<void> {
    const hadTheirTurn = await this.steps.take(
      what,
      jobs,
      (job) => this.attempt(what, () => step(job), { job_id: job.id }),
      () => !this.stopped && this.lease.isHeld,
    );
    if (!hadTheirTurn) this.roused = true;
  }

  private async remove(job: Job): Promise<void> {
    await this.launcher.remove(job.id);
    await this.forget(job);
  }

  /** Removes what the job left in the store, and its record last. */
  private async forget({ id }: Job): Promise<void> {
    await this.logs.remove(id);
    await this.halfMadeImages.remove(id);
    await this.jobs.delete({ id });
    this.log.log('removed', { job_id: id });
  }

  private async endIfDead(job: Job): Promise<void> {
    const observation = await this.launcher.observe(job.id);
    if (observation.state !== 'running')
      return this.end(job, observation.state === 'absent' ? GONE : (observation.reason ?? SILENT));
    await this.sayWhatIsSeen(job, observation);
    await this.endIfOverdue(job);
  }

  /** The deadline may have been moved since this look began: the record decides. */
  private async endIfOverdue(job: Job): Promise<void> {
    const latest = new Date(Date.now() - CLOSING);
    if (job.status !== 'waiting_on_user' || !job.shell_deadline || job.shell_deadline > latest) return;
    await this.end(job, OVERDUE, { status: 'waiting_on_user', shell_deadline: LessThan(latest) });
  }

  /** What only the launcher knows of a job that runs: what it waits for before its worker can speak, the address of its shell, its Secret. */
  private async sayWhatIsSeen(
    job: Job,
    { waits, externalIp, secret }: Observation & { state: 'running' },
  ): Promise<void> {
    const status_reason = waits ?? null;
    if (job.status === 'creating' && job.status_reason !== status_reason)
      await this.jobs.update({ id: job.id, status: 'creating' }, { status_reason } as never);
    if (secret && job.kubernetes_secret !== secret)
      await this.jobs.update({ id: job.id }, { kubernetes_secret: secret });
    const [shell] = job.ssh_containers ?? [];
    if (externalIp && shell && shell.connection_info.customer_access.external_ip !== externalIp)
      await this.jobs.query(
        `UPDATE jobs SET ssh_containers = jsonb_set(ssh_containers, '{0,connection_info,customer_access,external_ip}', to_jsonb($2::text))
         WHERE id = $1`,
        [job.id, externalIp],
      );
  }

  /** Ends a job whose worker said nothing of its end. Where it was done but for its last words, they are said for it. */
  private async end(job: Job, reason: string, onlyWhere: FindOptionsWhere<Job> = {}): Promise<void> {
    const image = await this.halfMadeImages.findFinished(job.id);
    const end = image
      ? ({ status: 'success', resultant_image_id: image } as const)
      : ({ status: 'error', status_reason: reason } as const);
    const { affected } = await this.jobs.update(
      { ...onlyWhere, id: job.id, ended: IsNull() },
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

  /** Launches the oldest of what waits, as many as may run. */
  private async launchWaiting(): Promise<void> {
    const forWaiting = (step: (job: Job) => Promise<void>) =>
      this.forEach({ launched: IsNull(), ended: IsNull() }, 'launch', step);
    let room = await this.launcher.free().catch(async (error: unknown) => {
      await forWaiting((job) => this.sayWhyItWaits(job, NOT_YET));
      throw error;
    });
    await forWaiting((job) => (room-- > 0 ? this.launch(job) : this.sayWhyItWaits(job, this.fullReason())));
  }

  /**
   * Launches first and says so second: where this server dies in between, the next look launches again, which changes nothing where
   * the job is there. Said first, a job that was never launched would pass for one that died.
   */
  private async launch(job: Job): Promise<void> {
    if (!(await this.isStillWanted(job))) return;
    try {
      await this.launcher.launch(await this.specOf(job));
    } catch (error) {
      return this.endOrTryAgain(job, error);
    }
    await this.sayThatItIsLaunched(job);
  }

  /** It may have been ended or deleted since this look began. */
  private isStillWanted({ id }: Job): Promise<boolean> {
    return this.jobs.existsBy({ id, launched: IsNull(), ended: IsNull(), deleted: IsNull() });
  }

  private async sayThatItIsLaunched({ id }: Job): Promise<void> {
    const values = {
      launched: new Date(),
      // The worker may have given a reason of its own by now.
      status_reason: () => `CASE WHEN status = 'creating' THEN NULL ELSE status_reason END`,
      // Where the job was ended meanwhile, what was launched is given back once more.
      released: null,
    };
    const { affected } = await this.jobs.update({ id, launched: IsNull() }, values);
    if (affected) this.log.log('launched', { job_id: id });
  }

  private async endOrTryAgain(job: Job, error: unknown): Promise<void> {
    if (error instanceof LaunchRefused) return this.end(job, error.message);
    await this.sayWhyItWaits(job, NOT_YET);
    throw error;
  }

  private fullReason(): string {
    return `waits until another job ends: JOB_MAX_RUNNING lets ${this.config.jobs.local.maxRunning} run at once`;
  }

  private async sayWhyItWaits(job: Job, reason: string): Promise<void> {
    if (job.status_reason !== reason)
      await this.jobs.update({ id: job.id, launched: IsNull(), ended: IsNull() }, { status_reason: reason });
  }

  private async specOf(job: Job) {
    return launchSpec(
      job,
      {
        caCertificate: await this.readCaCertificate(),
        serverUrl: this.config.jobs.kubernetes?.serverUrl ?? this.serverUrl!,
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
      `UPDATE jobs SET lease_until = now() + make_interval(secs => $2)
       WHERE runner = $1 AND (released IS NULL OR deleted IS NOT NULL)
         AND (lease_until IS NULL OR lease_until < now() + make_interval(secs => $2 / 2.0))`,
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

  /**
   * What jobs of a runner left in the store that nobody has answered for in a long time, as after its STATE_DIR was thrown away. What they
   * left on its machine is for the runner itself, should it come back.
   */
  private async cleanUpAfterOthers(): Promise<void> {
    const isGone = {
      runner: Not(this.runner),
      lease_until: Raw((column) => `${column} < now() - make_interval(secs => ${GONE_SECONDS})`),
    };
    for (const job of await this.jobs.findBy({ ...isGone, ended: Not(IsNull()), released: IsNull() })) {
      await this.halfMadeImages.remove(job.id);
      await this.jobs.update(job.id, { released: new Date() });
    }
    for (const job of await this.jobs.findBy({ ...isGone, deleted: Not(IsNull()) })) await this.forget(job);
  }

  /** What the launcher holds of jobs that have no record (any more), as after a database was restored or replaced: somebody may notice in time. */
  private async removeUnowned(): Promise<void> {
    const unowned = await this.findUnowned();
    for (const id of this.unownedSince.keys()) if (!unowned.includes(id)) this.unownedSince.delete(id);
    const graceSeconds = this.config.jobs.unownedSeconds;
    await this.take(
      unowned.map((id) => ({ id })),
      'remove what no job owns',
      ({ id }) => this.removeInTime(id, graceSeconds),
    );
  }

  private async findUnowned(): Promise<string[]> {
    const held = await this.launcher.list();
    const records = await this.jobs.find({ select: { id: true }, where: { id: In(held) } });
    const owned = new Set(records.map(({ id }) => id));
    return held.filter((id) => !owned.has(id));
  }

  private async removeInTime(job_id: string, graceSeconds: number): Promise<void> {
    if (!this.unownedSince.has(job_id)) {
      this.unownedSince.set(job_id, Date.now());
      this.log.warn('there are parts of a job that has no record', { job_id, removed_in_seconds: graceSeconds });
    }
    if (Date.now() - this.unownedSince.get(job_id)! < graceSeconds * 1000) return;
    await this.launcher.remove(job_id);
    this.unownedSince.delete(job_id);
    this.log.warn('removed what was left of a job without a record', { job_id });
  }
}
