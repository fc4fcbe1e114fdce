import { EventEmitter, once } from 'node:events';
import { Injectable } from '@nestjs/common';
import { InjectRepository } from '@nestjs/typeorm';
import { MoreThan, Repository } from 'typeorm';
import { Notices } from '../database/notices.js';
import { isTerminal } from '../protocol/job-status.js';
import { JobEvent } from './job-event.entity.js';

/** Events that are read at once. */
const PAGE = 500;
/** Milliseconds between two looks where the database does not tell, as while its connection is made anew. */
const INTERVAL = 2000;
/** Channel on which the triggers tell of events. */
const CHANNEL = 'job_events';

/** What happened to jobs, in order, and what happens to them now. */
@Injectable()
export class JobEvents {
  /** Emits the id of a job when something happened to it. */
  private readonly changes = new EventEmitter().setMaxListeners(0);
  private readonly emit = (jobId: string) => void this.changes.emit(jobId);

  constructor(
    @InjectRepository(JobEvent) private readonly events: Repository<JobEvent>,
    private readonly notices: Notices,
  ) {}

  /** All events of a job so far. */
  list(jobId: string): Promise<JobEvent[]> {
    return this.events.find({ where: { job_id: jobId }, order: { id: 'ASC' } });
  }

  /**
   * The events of a job after one, as they happen; ends with the event that ended the job, or when the job is removed.
   * @param after id of the last event that is known already; `0` for all
   */
  async *follow(jobId: string, after: string, signal: AbortSignal): AsyncGenerator<JobEvent> {
    await this.notices.listen(CHANNEL, this.emit);
    for (let last = after; !signal.aborted;) {
      const changed = this.change(jobId, signal);
      const page = await this.after(jobId, last);
      yield* page;
      last = page.at(-1)?.id ?? last;
      const newest = await this.newest(jobId);
      // A job that was removed has no events any more.
      if (!newest || (newest.id === last && isTerminal(newest.status))) return;
      if (newest.id === last) await changed;
    }
  }

  private after(jobId: string, id: string): Promise<JobEvent[]> {
    return this.events.find({ where: { job_id: jobId, id: MoreThan(id) }, order: { id: 'ASC' }, take: PAGE });
  }

  private newest(jobId: string): Promise<JobEvent | null> {
    return this.events.findOne({ where: { job_id: jobId }, order: { id: 'DESC' } });
  }

  /** Resolves when something happens to the job, or it is time for a look. */
  private async change(jobId: string, signal: AbortSignal): Promise<void> {
    const timeout = AbortSignal.any([signal, AbortSignal.timeout(INTERVAL)]);
    await once(this.changes, jobId, { signal: timeout }).catch(() => {});
  }
}
