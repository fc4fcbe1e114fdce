import { ApiProperty } from '@nestjs/swagger';
import { Column, DeleteDateColumn, Entity, PrimaryColumn, Index } from 'typeorm';
import { ArtifactLinkDto } from '../artifacts/artifact-link.dto.js';
import { DeletedTime, Hidden, OnlyInV3, Time } from '../database/wire.js';
import { Nested, OneOf, Optional, Text, Uuid } from '../errors/members.js';
import { type Arch, ARCHES } from '../protocol/arch.js';
import type { ArtifactLink } from '../protocol/artifact-link.js';
import type { ImageMetadata } from './image-metadata.js';

/** The recipe that an image was built from, as it was then. */
export class ImageRecipe {
  @Uuid()
  @ApiProperty({ format: 'uuid' })
  id: string;

  @Text()
  @ApiProperty()
  name: string;

  @Text({ blank: true })
  @ApiProperty({ description: 'Entity tag of the archive of the recipe.' })
  etag: string;
}

/** An image: the root file system, kernel and initrd that its manifest lists. */
// Indexes of every kind are described by the migrations: several are partial, or of expressions.
@Index('images_unlinked_job', { synchronize: false })
@Index('images_artifacts_unknown', { synchronize: false })
@Index('images_name', { synchronize: false })
@Index('images_metadata', { synchronize: false })
@Index('images_created', { synchronize: false })
@Index('images_arch', { synchronize: false })
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
  @Nested(ArtifactLinkDto, { nullable: true })
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

  @Column('jsonb', { nullable: true })
  @Nested(ImageRecipe, { nullable: true })
  @OnlyInV3()
  @ApiProperty({
    type: ImageRecipe,
    nullable: true,
    required: false,
    description: 'The recipe that the image was built from, where a create job made it.',
  })
  recipe: ImageRecipe | null;

  /** Where the link leads when all artifacts are at home; null where that is what `link` says. */
  @Column('jsonb', { nullable: true })
  @Hidden()
  home_link: ArtifactLink | null;

  /** Whether it is written down which artifacts the record leads to. */
  @Column('boolean', { default: false })
  @Hidden()
  artifacts_known: boolean;

  @DeleteDateColumn({ type: 'timestamptz', nullable: true })
  @DeletedTime()
  deleted: Date | null;
}
