import type { Logger } from '@nestjs/common';
import { In, type Repository } from 'typeorm';
import type { Job } from './job.entity.js';
import type { JobLauncher } from './launcher/job-launcher.js';

/**
 * What a launcher holds of jobs that have no record, as after a database was restored or replaced. It is removed a while after it was seen
 * first: somebody may notice in time.
 */
export class UnownedJobs {
  /** Since when (Unix time, ms) there are parts of a job that has no record, by its id. */
  private readonly since = new Map<string, number>();

  constructor(
    private readonly jobs: Repository<Job>,
    private readonly launcher: JobLauncher,
    private readonly graceSeconds: number,
    private readonly log: Logger,
  ) {}

  /** The jobs of which there are parts, but no record. */
  async find(): Promise<{ id: string }[]> {
    const held = await this.launcher.list();
    const records = await this.jobs.find({ select: { id: true }, where: { id: In(held) } });
    const owned = new Set(records.map(({ id }) => id));
    const unowned = held.filter((id) => !owned.has(id));
    for (const id of this.since.keys()) if (!unowned.includes(id)) this.since.delete(id);
    return unowned.map((id) => ({ id }));
  }

  /** Removes the parts of such a job when its time is over. */
  async removeInTime(job_id: string): Promise<void> {
    if (!this.since.has(job_id)) {
      this.since.set(job_id, Date.now());
      this.log.warn('there are parts of a job that has no record', { job_id, removed_in_seconds: this.graceSeconds });
    }
    if (Date.now() - this.since.get(job_id)! < this.graceSeconds * 1000) return;
    await this.launcher.remove(job_id);
    this.since.delete(job_id);
    this.log.warn('removed what was left of a job without a record', { job_id });
  }
}
