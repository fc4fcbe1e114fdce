import { randomBytes } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { Inject, Injectable } from '@nestjs/common';
import { InjectRepository } from '@nestjs/typeorm';
import { Any, type EntityManager, In, IsNull, LessThan, Repository } from 'typeorm';
import type { Config } from '../config/config.js';
import { CONFIG } from '../config/config.module.js';
import type { DryRun } from '../database/dry-run.dto.js';
import { Page, WouldBe } from '../database/json.js';
import { selectPage } from '../database/record-store.js';
import { addFilters, Where } from '../database/where.js';
import { problems } from '../errors/problems.js';
import type { NewRecord } from '../idempotency/new-record.js';
import { isTerminal } from '../protocol/job-status.js';
import { PublicKeysService } from '../public-keys/public-keys.service.js';
import { Job, type SshContainer } from './job.entity.js';
import { BadJobFilter, type JobFilter, type JobFilterQuery, parseJobFilter } from './job-filter.js';
import { planJob } from './job-plan.js';
import { JobReconciler, RUNNER } from './job-reconciler.js';
import { JobSources } from './job-sources.js';
import type { CreateJob, JobsListQuery, JobsQuery, ReportJob } from './jobs.dto.js';
import { JobLauncher, LaunchRefused } from './launcher/job-launcher.js';

/** Milliseconds between two looks at a job that somebody waits for to be launched. */
const LAUNCH_INTERVAL = 200;
const OLDEST_FIRST = { created: 'ASC', id: 'ASC' } as const;

@Injectable()
export class JobsService {
  constructor(
    @InjectRepository(Job) private readonly jobs: Repository<Job>,
    private readonly publicKeys: PublicKeysService,
    private readonly sources: JobSources,
    private readonly launcher: JobLauncher,
    private readonly reconciler: JobReconciler,
    @Inject(CONFIG) private readonly config: Config,
    @Inject(RUNNER) private readonly runner: string,
  ) {}

  /** All jobs, oldest first, or those that a query asks for. */
  async list(query: JobsListQuery): Promise<Page<Job>> {
    const where = addFilters(new Where('t."deleted" IS NULL'), query, { name: 'image_root_archive_name' });
    const { statuses, jobTypes } = filterOf({ status: query.status, job_type: query.job_type });
    if (statuses) where.and((place) => `t."status" = ANY(${place(statuses)})`);
    if (jobTypes) where.and((place) => `t."job_type" = ANY(${place(jobTypes)})`);
    if (!where.values.length && !query.limit)
      return new Page(await this.jobs.find({ where: { deleted: IsNull() }, order: OLDEST_FIRST }), null);
    const { texts: ids, next } = await selectPage(this.jobs, 't."id"', where, query.limit);
    return new Page(await this.jobs.find({ where: { id: Any(ids) }, order: OLDEST_FIRST }), next);
  }

  async get(id: string): Promise<Job> {
    const job = await this.jobs.findOneBy({ id, deleted: IsNull() });
    if (!job) throw problems.noSuchRecord('job', id);
    return job;
  }

  /** The job as it is when it has been launched, has ended or is gone; as it is now when nobody waits for that any more. */
  async whenLaunched(job: Job, signal: AbortSignal): Promise<Job> {
    for (let known = job; ; await sleep(LAUNCH_INTERVAL)) {
      if (known.launched || known.ended || signal.aborted) return known;
      const found = await this.jobs.findOneBy({ id: job.id, deleted: IsNull() });
      if (!found) return known;
      known = found;
    }
  }

  /** Checks, inserts, answers. The reconciler launches: a request must not wait for it, and a job must survive where it fails. */
  async create(request: CreateJob, { dry_run }: DryRun, record: NewRecord): Promise<Job | WouldBe> {
    const repeated = record.isRepeat && (await this.jobs.findOneBy({ id: record.id }));
    if (repeated) return repeated;
    const job = await this.plan(request, record.id);
    if (dry_run) return this.wouldCreate(job);
    await this.insert(job);
    this.reconciler.wake();
    return job;
  }

  /** Checks the request and decides what the job is. The address that it gets is its own from now on. */
  private async plan(request: CreateJob, id: string): Promise<Job> {
    refuseWrongContainers(request);
    const source = await this.sources.get(request);
    const publicKey = await this.publicKeys.find(request.public_key_id);
    if (!publicKey) throw problems.jobPublicKeyMissing(request.public_key_id);
    const circumstances = {
      id,
      created: new Date(),
      publicKey: publicKey.public_key,
      connectionInfo: await this.addressOf(id),
      runner: this.runner,
      token: newToken(),
    };
    return this.jobs.create(planJob(request, source, circumstances, this.config.jobs));
  }

  private async wouldCreate(job: Job): Promise<WouldBe> {
    await this.launcher.remove(job.id);
    return new WouldBe(job);
  }

  private async addressOf(id: string) {
    return this.launcher.address(id).catch((error: unknown) => {
      throw error instanceof LaunchRefused ? problems.cannotLaunch(error.message) : error;
    });
  }

  private async insert(job: Job): Promise<void> {
    try {
      await this.jobs.insert(job);
    } catch (error) {
      await this.launcher.remove(job.id);
      throw error;
    }
  }

  /** Takes what a worker or a client tells of a job. What is told of a job that has ended is refused, so that the worker stops. */
  async update(id: string, report: ReportJob): Promise<Job> {
    const job = await this.jobs.manager.transaction((manager) =>
      applyReport(manager, id, report, this.config.jobs.shellSeconds),
    );
    if (isTerminal(job.status)) this.reconciler.wake();
    return job;
  }

  /** The record goes at once; what the job holds is removed until nothing is left of it. */
  async delete(id: string, { dry_run }: DryRun): Promise<WouldBe | undefined> {
    if (dry_run) return new WouldBe(await this.get(id));
    const { affected } = await this.jobs.update({ id, deleted: IsNull() }, { deleted: new Date() });
    if (!affected) throw problems.noSuchRecord('job', id);
    this.reconciler.wake();
    return undefined;
  }

  async deleteMany(query: JobsQuery): Promise<WouldBe | undefined> {
    const { statuses, jobTypes, createdBefore } = filterOf(query);
    const where = {
      deleted: IsNull(),
      ...(statuses && { status: In(statuses) }),
      ...(jobTypes && { job_type: In(jobTypes) }),
      ...(createdBefore && { created: LessThan(createdBefore) }),
    };
    if (query.dry_run) return new WouldBe(await this.jobs.find({ where, order: OLDEST_FIRST }));
    await this.jobs.update(where, { deleted: new Date() });
    this.reconciler.wake();
    return undefined;
  }
}

function newToken(): string {
  return randomBytes(32).toString('base64url');
}

/** A create job has a shell only to look at what a failed build left. */
function refuseWrongContainers({ job_type, enable_debug, ssh_containers }: CreateJob): void {
  if (!ssh_containers?.length) return;
  if (job_type === 'create' && !enable_debug) throw problems.sshContainerOnCreate();
  if (ssh_containers.length > 1) throw problems.oneSshContainer();
}

function filterOf(query: JobFilterQuery): JobFilter {
  try {
    return parseJobFilter(query, new Date());
  } catch (error) {
    throw error instanceof BadJobFilter ? problems.badQuery(error.message) : error;
  }
}

/** The shell as a worker found it: with its keys, and on another port where the planned one was taken. */
function containersAfter(containers: SshContainer[] | null, { host_keys, ssh_port }: ReportJob): SshContainer[] | null {
  if (!containers || (!host_keys && !ssh_port)) return containers;
  return containers.map((container) => {
    const { customer_access, 'cluster.local': cluster } = container.connection_info;
    const moved = ssh_port && {
      customer_access: { ...customer_access, port: ssh_port },
      'cluster.local': { ...cluster, port: ssh_port },
    };
    return { ...container, ...(moved && { connection_info: moved }), ...(host_keys && { host_keys }) };
  });
}

/** A shell gets its deadline when it opens, unless somebody has given it one. */
function deadlineAfter(job: Job, { status, shell_deadline }: ReportJob, shellSeconds: number): Date | null {
  if (shell_deadline !== undefined) return shell_deadline;
  const opens = status === 'waiting_on_user' && job.status !== 'waiting_on_user';
  return opens && shellSeconds && !job.shell_deadline ? new Date(Date.now() + shellSeconds * 1000) : job.shell_deadline;
}

async function applyReport(manager: EntityManager, id: string, report: ReportJob, shellSeconds: number): Promise<Job> {
  const job = await manager.findOne(Job, { where: { id, deleted: IsNull() }, lock: { mode: 'pessimistic_write' } });
  if (!job) throw problems.noSuchRecord('job', id);
  const {
    status = job.status,
    resultant_image_id = job.resultant_image_id,
    status_reason,
    progress,
    packing = job.packing,
    shell_idle_seconds = job.shell_idle_seconds,
    ...shell
  } = report;
  if (isTerminal(job.status) && status !== job.status) throw problems.jobIsOver(id, job.status);
  if (status === 'success' && !resultant_image_id) throw problems.successNeedsImage();
  const ends = isTerminal(status) && !isTerminal(job.status);
  const values: Partial<Job> = {
    status,
    resultant_image_id,
    packing,
    ssh_containers: containersAfter(job.ssh_containers, shell),
    ...((status !== job.status || status_reason !== undefined) && { status_reason: status_reason ?? null }),
    ...((status !== job.status || progress !== undefined) && {
      // A report that was overtaken by the end of the job says nothing that is still true.
      progress: isTerminal(status) ? null : (progress ?? null),
    }),
    shell_idle_seconds,
    shell_deadline: deadlineAfter(job, report, shellSeconds),
    ...(ends && { ended: new Date() }),
  };
  await manager.update(Job, id, values as never);
  return Object.assign(job, values);
}
