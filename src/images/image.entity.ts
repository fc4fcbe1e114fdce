import { ApiProperty } from '@nestjs/swagger';
import { Type } from 'class-transformer';
import { ValidateNested } from 'class-validator';
import { Column, DeleteDateColumn, Entity, PrimaryColumn, Index } from 'typeorm';
import { Hidden, OnlyInV3, Time } from '../database/wire.js';
import { OneOf, Optional, Text, Uuid } from '../errors/members.js';
import { type Arch, ARCHES } from '../protocol/arch.js';
import type { ArtifactLink } from '../protocol/artifact-link.js';
import { ArtifactLinkDto } from './artifact-link.dto.js';
import type { ImageMetadata } from './image-metadata.js';

/** An image: the root file system, kernel and initrd that its manifest lists. */
// A partial index, which only migrations can describe.
@Index('images_unlinked_job', { synchronize: false })
@Entity('images')
export class Image {
  @PrimaryColumn('uuid')
  @ApiProperty({ format: 'uuid', readOnly: true })
  id: string;

  @Column('timestamptz')
  @Time()
  created: Date;

  @Column('text')
  @Text()
  @ApiProperty({ description: 'For people: several images may have the same name.', example: 'compute-sles15sp6' })
  name: string;

  /** Given once; null until the artifacts are there. */
  @Column('jsonb', { nullable: true })
  @Optional()
  @ValidateNested()
  @Type(() => ArtifactLinkDto)
  @ApiProperty({ type: ArtifactLinkDto, nullable: true, required: false, description: 'The manifest of the image.' })
  link: ArtifactLink | null;

  @Column('text')
  @Optional()
  @OneOf(ARCHES)
  @ApiProperty({ enum: ARCHES, default: 'x86_64', required: false })
  arch: Arch;

  @Column('jsonb', { default: {} })
  @ApiProperty({
    type: Object,
    additionalProperties: { type: 'string' },
    description: 'Tags.',
    example: { 'sbps-project': 'true' },
  })
  metadata: ImageMetadata;

  @Column('uuid', { nullable: true })
  @Optional()
  @Uuid()
  @OnlyInV3()
  @ApiProperty({
    type: String,
    format: 'uuid',
    nullable: true,
    required: false,
    description: 'The job that made the image.',
  })
  job_id: string | null;

  @DeleteDateColumn({ type: 'timestamptz', nullable: true })
  @Hidden()
  deleted: Date | null;
}
