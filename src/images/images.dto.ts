import { ApiProperty, IntersectionType, PartialType, PickType } from '@nestjs/swagger';
import { Allow } from 'class-validator';
import { ArtifactLinkDto } from '../artifacts/artifact-link.dto.js';
import { Nested } from '../errors/members.js';
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
  PartialType(PickType(Image, ['job_id'] as const)),
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
