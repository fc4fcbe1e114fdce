import { ApiProperty, IntersectionType, PartialType, PickType } from '@nestjs/swagger';
import { Allow } from 'class-validator';
import { ArtifactLinkDto } from '../artifacts/artifact-link.dto.js';
import { BuiltListQuery } from '../database/list-query.dto.js';
import { Nested, Optional, Text } from '../errors/members.js';
import { Image } from './image.entity.js';

/** What a client sends to register an image. */
export class CreateImage extends PickType(Image, ['name', 'link', 'arch'] as const) {
  @Allow()
  @ApiProperty({
    required: false,
    type: Object,
    description: 'Tags: an object of texts, or one pair as {"key": …, "value": …}.',
    example: { key: 'sbps-project', value: 'true' },
  })
  metadata?: unknown;
}

/** What a worker sends to register the image that its job is making. */
export class CreateImageOfJob extends IntersectionType(
  CreateImage,
  PartialType(PickType(Image, ['job_id', 'recipe'] as const)),
) {}

/** What a client sends to change an image: the link, once, the architecture, or one tag. */
export class UpdateImage extends PartialType(PickType(Image, ['arch'] as const), { skipNullProperties: false }) {
  @Nested(ArtifactLinkDto)
  @ApiProperty({ type: ArtifactLinkDto, required: false })
  link?: ArtifactLinkDto;

  @Allow()
  @ApiProperty({
    required: false,
    type: Object,
    example: { operation: 'set', key: 'sbps-project', value: 'true' },
    description: 'Sets or removes one tag.',
  })
  metadata?: unknown;
}

/** Which images a list has. */
export class ImagesQuery extends BuiltListQuery {
  @Optional()
  @Text({ blank: true })
  @ApiProperty({ required: false, description: 'Only images that have this tag.', example: 'sbps-project' })
  metadata_key?: string;

  @Optional()
  @Text({ blank: true, limit: 1_048_576 })
  @ApiProperty({
    required: false,
    description: 'Only images whose tag `metadata_key` has this value.',
    example: 'true',
  })
  metadata_value?: string;
}
