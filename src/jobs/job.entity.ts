import { ApiProperty } from '@nestjs/swagger';
import { Transform } from 'class-transformer';
import { Column, Entity, PrimaryColumn, Index } from 'typeorm';
import { Hidden, OnlyInV3, Time, V3_ONLY } from '../database/wire.js';
import { Bool, OneOf, Optional, PositiveInteger, Text, Uuid } from '../errors/members.js';
import { type Arch, ARCHES } from '../protocol/arch.js';
import type { HostKey, JobProgress, PackingReport } from '../protocol/job-report.js';
import type { SourceSpec, TemplateValue } from '../protocol/job-spec.js';
import { JOB_STATUSES, JOB_TYPES, type JobStatus, type JobType } from '../protocol/job-status.js';
import { STATUS_CODES, type StatusCode } from '../protocol/status-codes.js';
import type { ConnectionInfo } from './launcher/job-launcher.js';

/** What a job keeps of the recipe that it builds from. */
export interface JobRecipe {
  name: string;
  /** `kiwi-ng` or `packer`. */
  recipe_type: string;
  template_dictionary: TemplateValue[];
}

/** The ssh environment of a job. */
export interface SshContainer {
  name?: string;
  jail: boolean;
  status: string;
  connection_info: ConnectionInfo;
  /** Public keys of its sshd, for clients that pin them; known when the job waits on the user, told in v3 only. */
  host_keys?: HostKey[];
}

/** The part of the document that says what an ssh container looks like. */
const SSH_CONTAINER_EXAMPLE = {
  name: 'customize',
  jail: false,
  status: 'pending',
  connection_info: {
    customer_access: { host: 'ad5163d2-398d-4e93-94f0-2f439f114fe7.ims.cmn.shasta.local', port: 22 },
    'cluster.local': { host: 'cray-ims-ad5163d2-398d-4e93-94f0-2f439f114fe7-service.ims.svc.cluster.local', port: 22 },
  },
};

/** What clients of the original know of ssh containers. */
function asOriginal(containers: SshContainer[] | null): SshContainer[] | null {
  return (
    containers &&
    containers.map((container) => ({ ...container, host_keys: undefined, ...originalAddresses(container) }))
  );
}

function originalAddresses({ connection_info }: SshContainer): Partial<SshContainer> {
  if (connection_info?.customer_access?.external_ip === undefined) return {};
  const { external_ip: _ours, ...customer_access } = connection_info.customer_access;
  return { connection_info: { ...connection_info, customer_access } };
}

/** The `runner` of jobs that the original ran: there is nothing left of them but their records. */
export const IMPORTED = 'import';

/** A job: changes an image, or builds one from a recipe. Its own copies of key and source outlive their records. */
// Indexes of every kind are described by the migrations: several are partial, or of expressions.
@Index('jobs_unfinished', { synchronize: false })
@Index('jobs_ended', { synchronize: false })
@Index('jobs_name', { synchronize: false })
@Index('jobs_created', { synchronize: false })
@Index('jobs_arch', { synchronize: false })
@Index('jobs_status', { synchronize: false })
@Index('jobs_job_type', { synchronize: false })
@Entity('jobs')
export class Job {
  @PrimaryColumn('uuid')
  @ApiProperty({ format: 'uuid', readOnly: true })
  id: string;

  @Column('timestamptz')
  @Time()
  created: Date;

  @Column('text')
  @OneOf(JOB_TYPES)
  @ApiProperty({ enum: JOB_TYPES, example: 'customize' })
  job_type: JobType;

  @Column('text')
  @OneOf(JOB_STATUSES)
  @ApiProperty({ enum: JOB_STATUSES })
  status: JobStatus;

  @Column('uuid')
  @Uuid()
  @ApiProperty({ format: 'uuid', description: 'Image to customize, or recipe to build from.' })
  artifact_id: string;

  @Column('uuid')
  @Uuid()
  @ApiProperty({ format: 'uuid', description: 'Public key that opens the shell.' })
  public_key_id: string;

  @Column('text')
  @Text()
  @ApiProperty({ description: 'Name of the image that the job makes.', example: 'my_customized_image' })
  image_root_archive_name: string;

  @Column('text')
  @Optional()
  @Text({ blank: true })
  @ApiProperty({
    required: false,
    description: 'File in /boot. Default: vmlinuz, or Image for aarch64.',
    example: 'vmlinuz',
  })
  kernel_file_name: string;

  @Column('text')
  @Optional()
  @Text()
  @ApiProperty({ required: false, description: 'File in /boot.', default: 'initrd' })
  initrd_file_name: string;

  @Column('text')
  @Optional()
  @Text()
  @ApiProperty({
    required: false,
    description: 'File in /boot; it may be missing there.',
    default: 'kernel-parameters',
  })
  kernel_parameters_file_name: string;

  @Column('boolean')
  @Optional()
  @Bool()
  @ApiProperty({ required: false, description: 'Whether a failed build waits with a shell.', default: false })
  enable_debug: boolean;

  @Column('integer')
  @Optional()
  @PositiveInteger()
  @ApiProperty({ required: false, type: 'integer', description: 'Disk space of the job, GiB.', default: 10 })
  build_env_size: number;

  @Column('integer')
  @Optional()
  @PositiveInteger()
  @ApiProperty({ required: false, type: 'integer', description: 'Memory of the job, GiB.', default: 8 })
  job_mem_size: number;

  @Column('boolean')
  @Optional()
  @Bool()
  @ApiProperty({
    required: false,
    description: 'Whether kernel modules are built. Default: the recipe, then the site decides.',
  })
  require_dkms: boolean;

  @Column('text')
  @ApiProperty({ enum: ARCHES })
  arch: Arch;

  @Column('jsonb', { nullable: true })
  @Transform(
    ({ value, options }) => (options.groups?.includes(V3_ONLY) ? value : asOriginal(value as SshContainer[])),
    {
      toPlainOnly: true,
    },
  )
  @ApiProperty({ type: [Object], nullable: true, example: [SSH_CONTAINER_EXAMPLE] })
  ssh_containers: SshContainer[] | null;

  @Column('uuid', { nullable: true })
  @Optional()
  @Uuid()
  @ApiProperty({
    type: String,
    format: 'uuid',
    nullable: true,
    description: 'The image that the job made; null until it is registered.',
  })
  resultant_image_id: string | null;

  @Column('text')
  @ApiProperty()
  kubernetes_job: string;

  @Column('text')
  @ApiProperty()
  kubernetes_service: string;

  @Column('text')
  @ApiProperty()
  kubernetes_configmap: string;

  @Column('text')
  @ApiProperty()
  kubernetes_pvc: string;

  @Column('text')
  @ApiProperty()
  kubernetes_namespace: string;

  @Column('text', { nullable: true })
  @ApiProperty({ type: String, nullable: true })
  kubernetes_secret: string | null;

  @Column('text')
  @ApiProperty()
  remote_build_node: string;

  @Column('text', { nullable: true })
  @OnlyInV3()
  @ApiProperty({
    type: String,
    nullable: true,
    description: 'Why the job ended or waits, and what to change. Version 3 only.',
  })
  status_reason: string | null;

  @Column('text', { nullable: true })
  @OnlyInV3()
  @ApiProperty({
    type: String,
    enum: STATUS_CODES,
    nullable: true,
    description: 'Why the job ended or waits, for programs: the cause that status_reason tells of. Version 3 only.',
    example: 'out_of_memory',
  })
  status_code: StatusCode | null;

  @Column('jsonb', { nullable: true })
  @OnlyInV3()
  @ApiProperty({
    type: Object,
    nullable: true,
    description: 'How far the running stage is, bytes. Version 3 only.',
    example: { stage: 'upload', done: 8_388_608, total: 33_554_432 },
  })
  progress: JobProgress | null;

  @Column('jsonb', { nullable: true })
  @OnlyInV3()
  @ApiProperty({
    type: Object,
    nullable: true,
    description:
      'What packing the new image took: bytes in all, bytes reused from the source image as they were, bytes that are new, and the seconds of each stage. Version 3 only.',
    example: {
      method: 'delta',
      bytes: 379_412_480,
      bytes_reused: 377_100_288,
      bytes_new: 2_312_192,
      seconds: { tables: 0.4, compare: 0.1, copy: 0.5, compress: 0.2, metadata: 0.4 },
    },
  })
  packing: PackingReport | null;

  /** The key itself, as it was when the job was made. */
  @Column('text')
  @Hidden()
  public_key: string;

  /** What the job starts from, as it was when the job was made. */
  @Column('jsonb')
  @Hidden()
  source: Omit<SourceSpec, 'file'>;

  /** The recipe that the job builds from, as it was when the job was made; null for customize jobs. */
  @Column('jsonb', { nullable: true })
  @Hidden()
  recipe: JobRecipe | null;

  /** The launcher that the job belongs to: one for each state directory of local servers. */
  @Column('text')
  @Hidden()
  runner: string;

  /** By what a worker shows that it works for this job; null for jobs of earlier versions. */
  @Column('text', { nullable: true })
  @Hidden()
  token: string | null;

  /** When the job was handed to its launcher. */
  @Column('timestamptz', { nullable: true })
  @Hidden()
  launched: Date | null;

  /** Until when the servers of the runner answer for the job without saying so again. */
  @Column('timestamptz', { nullable: true })
  @Hidden()
  lease_until: Date | null;

  /** When the job became a success or an error. */
  @Column('timestamptz', { nullable: true })
  @OnlyInV3()
  @Time({ nullable: true, description: 'When the job ended. Version 3 only.' })
  ended: Date | null;

  /** When the shell is ended if nobody does so before; null where there is none, or it stays open. */
  @Column('timestamptz', { nullable: true })
  @OnlyInV3()
  @Time({
    nullable: true,
    required: false,
    readOnly: false,
    description: 'When the shell is ended if nobody ends it before. Can be moved while the job runs. Version 3 only.',
  })
  shell_deadline: Date | null;

  /** Seconds after which a shell is ended in which nobody is; null for never. */
  @Column('integer', { nullable: true })
  @OnlyInV3()
  @ApiProperty({
    type: 'integer',
    nullable: true,
    required: false,
    description:
      'Seconds after which the shell is ended if nobody is logged in and nothing runs in it. Can be changed while the job runs. Version 3 only.',
  })
  shell_idle_seconds: number | null;

  /** When what the ended job held was given back. */
  @Column('timestamptz', { nullable: true })
  @Hidden()
  released: Date | null;

  /** When the record was deleted. The row goes when all that the job left is gone. */
  @Column('timestamptz', { nullable: true })
  @Hidden()
  deleted: Date | null;
}
