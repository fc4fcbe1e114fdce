import { ApiProperty } from '@nestjs/swagger';
import { Column, Entity, Index, JoinColumn, ManyToOne, PrimaryGeneratedColumn } from 'typeorm';
import { Hidden, Time } from '../database/wire.js';
import type { JobProgress } from '../protocol/job-report.js';
import { JOB_STATUSES, type JobStatus } from '../protocol/job-status.js';
import { Job } from './job.entity.js';

/** Something that happened to a job. The database writes these rows, by triggers. */
@Entity('job_events')
@Index('job_events_job', ['job_id', 'id'])
export class JobEvent {
  /** Later events have larger ids; a text, since it may exceed what a number holds. */
  @PrimaryGeneratedColumn('identity', {
    type: 'bigint',
    generatedIdentity: 'ALWAYS',
    primaryKeyConstraintName: 'PK_job_events',
  })
  @ApiProperty({ type: String, description: 'Later events have larger ids.', example: '17' })
  id: string;

  @Column('uuid')
  @Hidden()
  job_id: string;

  @ManyToOne(() => Job, { onDelete: 'CASCADE' })
  @JoinColumn({ name: 'job_id', foreignKeyConstraintName: 'FK_job_events_job' })
  @Hidden()
  job?: Job;

  @Column('timestamptz', { default: () => 'now()' })
  @Time()
  @ApiProperty({ type: String, format: 'date-time' })
  time: Date;

  @Column('text')
  @ApiProperty({ enum: JOB_STATUSES })
  status: JobStatus;

  @Column('text', { nullable: true })
  @ApiProperty({ type: String, nullable: true })
  status_reason: string | null;

  @Column('jsonb', { nullable: true })
  @ApiProperty({ type: Object, nullable: true, example: { stage: 'pack', done: 1024, total: null } })
  progress: JobProgress | null;
}
