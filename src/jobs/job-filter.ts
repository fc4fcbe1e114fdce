import { JOB_STATUSES, JOB_TYPES, type JobStatus, type JobType } from '../protocol/job-status.js';

/** Which jobs a bulk delete means. An absent member means any. */
export interface JobFilter {
  statuses?: JobStatus[];
  jobTypes?: JobType[];
  /** Only jobs created before this moment. */
  createdBefore?: Date;
}

/** The query of a bulk delete as it arrives: a parameter that is given several times is an array. */
export interface JobFilterQuery {
  status?: string | string[];
  job_type?: string | string[];
  age?: string | string[];
}

/** The query asks for something that cannot be meant; the message is for the client. */
export class BadJobFilter extends Error {}

const AGE = /^(?:(\d{1,9})w)?(?:(\d{1,9})d)?(?:(\d{1,9})h)?(?:(\d{1,9})m)?$/;
const MINUTES = [7 * 24 * 60, 24 * 60, 60, 1] as const;

/** Minutes of an age such as `1d2h`: weeks, days, hours, minutes in this order, at least one of them. */
export function parseAge(age: string): number {
  const parts = AGE.exec(age)?.slice(1);
  if (!age || !parts)
    throw new BadJobFilter('age must be weeks, days, hours and minutes in this order, as 2w3d4h5m or 1d');
  return parts.reduce((sum, part, index) => sum + Number(part ?? 0) * MINUTES[index]!, 0);
}

function oneOf<T extends string>(name: string, known: readonly T[], given: string | string[]): T[] {
  return [given].flat().map((text) => {
    const value = known.find((candidate) => candidate === text);
    if (!value) throw new BadJobFilter(`${name} must be one of ${known.join(', ')}`);
    return value;
  });
}

/** The oldest moment that a Date can name; an age beyond it matches no job. */
const OLDEST = -8_640_000_000_000_000;

/**
 * What a bulk delete means.
 * @throws BadJobFilter for anything that is not understood: a delete never guesses
 */
export function parseJobFilter(query: JobFilterQuery, now: Date): JobFilter {
  const filter: JobFilter = {};
  // Operators type statuses in capitals, as reports print them; the original takes that for statuses only.
  if (query.status !== undefined)
    filter.statuses = oneOf(
      'status',
      JOB_STATUSES,
      [query.status].flat().map((s) => s.toLowerCase()),
    );
  if (query.job_type !== undefined) filter.jobTypes = oneOf('job_type', JOB_TYPES, query.job_type);
  if (query.age !== undefined) {
    if (Array.isArray(query.age)) throw new BadJobFilter('age must be given once');
    filter.createdBefore = new Date(Math.max(OLDEST, now.getTime() - parseAge(query.age) * 60_000));
  }
  return filter;
}
