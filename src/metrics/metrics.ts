import { Injectable } from '@nestjs/common';
import { InjectDataSource } from '@nestjs/typeorm';
import { collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client';
import { DataSource } from 'typeorm';
import { JOB_STATUSES } from '../protocol/job-status.js';

/** Upper bounds of the classes of answer times, seconds. */
const BUCKETS = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10];

/** What monitoring reads of the service (Prometheus text format). */
@Injectable()
export class Metrics {
  private readonly registry = new Registry();
  private readonly requests = new Histogram({
    name: 'ims_http_request_duration_seconds',
    help: 'Time from request to answer.',
    labelNames: ['method', 'route', 'status'],
    buckets: BUCKETS,
    registers: [this.registry],
  });

  constructor(@InjectDataSource() private readonly database: DataSource) {
    collectDefaultMetrics({ register: this.registry });
    const jobs: Gauge = new Gauge({
      name: 'ims_jobs',
      help: 'Jobs by status.',
      labelNames: ['status'],
      registers: [this.registry],
      collect: (): Promise<void> => this.countJobs(jobs),
    });
  }

  get contentType(): string {
    return this.registry.contentType;
  }

  /** All metrics, as text. */
  read(): Promise<string> {
    return this.registry.metrics();
  }

  /** Notes an answer. The route is a pattern: paths hold ids, and would make a metric of each. */
  answered(method: string, route: string, status: number, seconds: number): void {
    this.requests.observe({ method, route, status }, seconds);
  }

  private async countJobs(gauge: Gauge): Promise<void> {
    const rows: { status: string; count: number }[] = await this.database.query(
      `SELECT status, count(*)::int AS count FROM jobs WHERE deleted IS NULL GROUP BY status`,
    );
    for (const status of JOB_STATUSES) gauge.set({ status }, rows.find((row) => row.status === status)?.count ?? 0);
  }
}
