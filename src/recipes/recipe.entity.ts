import { ApiProperty } from '@nestjs/swagger';
import { Column, DeleteDateColumn, Entity, Index, PrimaryColumn } from 'typeorm';
import { ArtifactLinkDto } from '../artifacts/artifact-link.dto.js';
import { DeletedTime, Hidden, Time } from '../database/wire.js';
import { Bool, ItemsOf, Nested, OneOf, Optional, Text } from '../errors/members.js';
import { type Arch, ARCHES } from '../protocol/arch.js';
import type { ArtifactLink } from '../protocol/artifact-link.js';

export const RECIPE_TYPES = ['kiwi-ng', 'packer'] as const;
export const LINUX_DISTRIBUTIONS = ['sles12', 'sles15', 'centos7'] as const;

/** A value that the templates of a recipe are filled with. */
export class TemplateEntry {
  @Text({ blank: true })
  @ApiProperty({ example: 'CSM_RELEASE_VERSION' })
  key: string;

  @Text({ blank: true })
  @ApiProperty({ example: '1.6.0' })
  value: string;
}

/** A recipe: an archive from which a create job builds an image. */
// Indexes of every kind are described by the migrations: several are partial, or of expressions.
@Index('recipes_artifacts_unknown', { synchronize: false })
@Index('recipes_name', { synchronize: false })
@Index('recipes_created', { synchronize: false })
@Index('recipes_arch', { synchronize: false })
@Entity('recipes')
export class Recipe {
  @PrimaryColumn('uuid')
  @ApiProperty({ format: 'uuid', readOnly: true })
  id: string;

  @Column('timestamptz')
  @Time()
  created: Date;

  @Column('text')
  @Text()
  @ApiProperty({
    description: 'For people: several recipes may have the same name.',
    example: 'cray-sles15sp6-barebones',
  })
  name: string;

  /** Given once; null until the archive is there. */
  @Column('jsonb', { nullable: true })
  @Nested(ArtifactLinkDto, { nullable: true })
  @ApiProperty({ type: ArtifactLinkDto, nullable: true, required: false, description: 'The archive of the recipe.' })
  link: ArtifactLink | null;

  @Column('text')
  @OneOf(RECIPE_TYPES)
  @ApiProperty({ enum: RECIPE_TYPES })
  recipe_type: string;

  @Column('text')
  @OneOf(LINUX_DISTRIBUTIONS)
  @ApiProperty({ enum: LINUX_DISTRIBUTIONS })
  linux_distribution: string;

  @Column('text')
  @Optional()
  @OneOf(ARCHES)
  @ApiProperty({ enum: ARCHES, default: 'x86_64', required: false })
  arch: Arch;

  @Column('boolean')
  @Optional()
  @Bool()
  @ApiProperty({
    required: false,
    default: true,
    description: 'Whether jobs on it get an environment in which kernel modules can be built.',
  })
  require_dkms: boolean;

  @Column('jsonb', { nullable: true })
  @ItemsOf(TemplateEntry)
  @ApiProperty({
    type: [TemplateEntry],
    required: false,
    nullable: true,
    description: 'Values for the templates of the recipe.',
  })
  template_dictionary: TemplateEntry[] | null;

  /** Where the link leads when the archive is at home; null where that is what `link` says. */
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
