import { ApiProperty, IntersectionType, PartialType, PickType } from '@nestjs/swagger';
import { Transform } from 'class-transformer';
import { Allow } from 'class-validator';
import { DryRun } from '../database/dry-run.dto.js';
import { BuiltListQuery } from '../database/list-query.dto.js';
import { Bool, ItemsOf, OneOf, Optional, Shaped, Text } from '../errors/members.js';
import { type HostKey, type JobProgress, PACKING_METHODS, type PackingReport } from '../protocol/job-report.js';
import { JOB_STATUSES, JOB_TYPES } from '../protocol/job-status.js';
import { STATUS_CODES, type StatusCode } from '../protocol/status-codes.js';
import { Job } from './job.entity.js';
import type { JobFilterQuery } from './job-filter.js';

/** The shell that a client asks for. */
export class SshContainerRequest {
  @Optional()
  @Text()
  @ApiProperty({ required: false, default: 'customize' })
  name?: string;

  @Optional()
  @Bool()
  @ApiProperty({
    required: false,
    default: false,
    description: 'Whether the user stands inside of the image root at once.',
  })
  jail?: boolean;
}

/** What a client sends to start a job. */
export class CreateJob extends IntersectionType(
  PickType(Job, ['job_type', 'artifact_id', 'public_key_id', 'image_root_archive_name'] as const),
  PartialType(
    PickType(Job, [
      'kernel_file_name',
      'initrd_file_name',
      'kernel_parameters_file_name',
      'enable_debug',
      'build_env_size',
      'job_mem_size',
      'require_dkms',
    ] as const),
    { skipNullProperties: false },
  ),
) {
  @ItemsOf(SshContainerRequest)
  @ApiProperty({
    type: [SshContainerRequest],
    required: false,
    nullable: true,
    description: 'One shell at most: of a customize job, or with enable_debug of a create job whose build fails.',
  })
  ssh_containers?: SshContainerRequest[] | null;
}

/** What a client may tell of a job. */
export class UpdateJob extends PartialType(PickType(Job, ['status', 'resultant_image_id'] as const), {
  skipNullProperties: false,
}) {}

/** What a worker tells of its job besides. */
export class ReportJob extends UpdateJob {
  @Optional()
  @Text({ limit: 8192 })
  @ApiProperty({ required: false, description: 'Why the job ended or waits.' })
  status_reason?: string;

  @Optional()
  @OneOf(STATUS_CODES)
  @ApiProperty({ required: false, enum: STATUS_CODES, description: 'The cause of which status_reason tells.' })
  status_code?: StatusCode;

  @Shaped('an object with stage, done and total', isProgress)
  @ApiProperty({ required: false, nullable: true, type: Object, example: { stage: 'pack', done: 1024, total: null } })
  progress?: JobProgress | null;

  @Shaped('an object with method, bytes, bytes_reused, bytes_new and seconds', isPacking)
  @ApiProperty({
    required: false,
    type: Object,
    example: { method: 'delta', bytes: 1024, bytes_reused: 1000, bytes_new: 24, seconds: { copy: 0.5 } },
  })
  packing?: PackingReport;

  @Shaped('a list of objects with type, key and fingerprint', isHostKeys)
  @ApiProperty({
    required: false,
    type: [Object],
    example: [{ type: 'ssh-ed25519', key: 'AAAA…', fingerprint: 'SHA256:…' }],
  })
  host_keys?: HostKey[];

  @Shaped('a TCP port', (value) => Number.isInteger(value) && (value as number) > 0 && (value as number) < 65_536)
  @ApiProperty({ required: false, type: 'integer', minimum: 1, maximum: 65_535 })
  ssh_port?: number;

  @Shaped('a time to come, as 2026-11-23T12:00:00Z, or null for never', isTimeToCome)
  @Transform(({ value }: { value: unknown }) => (typeof value === 'string' ? new Date(value) : value), {
    toClassOnly: true,
  })
  @ApiProperty({ required: false, nullable: true, type: String, format: 'date-time' })
  shell_deadline?: Date | null;

  @Shaped('a number of seconds from 1 on, or null for never', isSeconds)
  @ApiProperty({ required: false, nullable: true, type: 'integer', minimum: 1 })
  shell_idle_seconds?: number | null;
}

function isTimeToCome(value: unknown): boolean {
  return value === null || (value instanceof Date && value.getTime() > Date.now());
}

function isSeconds(value: unknown): boolean {
  return value === null || (Number.isInteger(value) && (value as number) >= 1 && (value as number) < 2 ** 31);
}

function isProgress(value: unknown): boolean {
  if (value === null) return true;
  const { stage, done, total } = value as JobProgress;
  const isCount = (count: unknown) => count === null || Number.isSafeInteger(count);
  return typeof stage === 'string' && stage.length <= 200 && isCount(done) && isCount(total);
}

function isPacking(value: unknown): boolean {
  const { method, bytes, bytes_reused, bytes_new, seconds } = value as PackingReport;
  const isCount = (count: unknown) => Number.isSafeInteger(count) && (count as number) >= 0;
  const stages = Object.entries(seconds);
  const isStage = ([stage, time]: [string, unknown]) => stage.length <= 50 && Number.isFinite(time);
  return (
    PACKING_METHODS.includes(method) &&
    [bytes, bytes_reused, bytes_new].every(isCount) &&
    stages.length <= 20 &&
    stages.every(isStage)
  );
}

function isHostKeys(value: unknown): boolean {
  const isKey = (key: Partial<HostKey> | null) =>
    [key?.type, key?.key, key?.fingerprint].every((text) => typeof text === 'string' && text.length < 8192);
  return Array.isArray(value) && value.length <= 10 && value.every(isKey);
}

/** Which jobs a list has. */
export class JobsListQuery extends BuiltListQuery implements Omit<JobFilterQuery, 'age'> {
  @Allow()
  @ApiProperty({ required: false, enum: JOB_STATUSES, isArray: true, description: 'Only jobs of these statuses.' })
  status?: string | string[];

  @Allow()
  @ApiProperty({ required: false, enum: JOB_TYPES, isArray: true, description: 'Only jobs of these types.' })
  job_type?: string | string[];
}

/** Which jobs a bulk delete means. Checked by job-filter.ts, where a parameter may be given several times. */
export class JobsQuery extends DryRun implements JobFilterQuery {
  @Allow()
  @ApiProperty({ required: false, enum: JOB_STATUSES, isArray: true })
  status?: string | string[];

  @Allow()
  @ApiProperty({ required: false, enum: JOB_TYPES, isArray: true })
  job_type?: string | string[];

  @Allow()
  @ApiProperty({ required: false, type: String, description: 'Jobs at least this old, as 1w2d3h4m.', example: '1d' })
  age?: string | string[];
}
