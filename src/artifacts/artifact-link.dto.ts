import { ApiProperty } from '@nestjs/swagger';
import { OneOf, Optional, Text } from '../errors/members.js';
import type { ArtifactLink } from '../protocol/artifact-link.js';

/** Where the artifacts of a record are. */
export class ArtifactLinkDto implements ArtifactLink {
  @Text({ limit: 4096 })
  @ApiProperty({ example: 's3://boot-images/4e78488d-4d92-4675-9d83-97adfc17cb19/manifest.json' })
  path: string;

  @Optional()
  @Text({ blank: true })
  @ApiProperty({ required: false, default: '', example: '28f3d78c8cceca2083d7d3090d96bbb7' })
  etag: string = '';

  @OneOf(['s3'])
  @ApiProperty({ enum: ['s3'] })
  type: string;
}
