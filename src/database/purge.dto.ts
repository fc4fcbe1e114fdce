import { ApiProperty } from '@nestjs/swagger';
import { Transform } from 'class-transformer';
import { Bool, Optional } from '../errors/members.js';
import { DryRun } from './dry-run.dto.js';

/** How a record is deleted for good. */
export class Purge extends DryRun {
  // Given twice, the first counts; given empty, it is false: so clients of the original know it.
  @Transform(({ value }: { value: unknown }) => (Array.isArray(value) ? (value[0] as unknown) : value) || false)
  @Optional()
  @Bool()
  @ApiProperty({ required: false, default: true, description: 'Whether the artifacts go too.' })
  cascade?: boolean;
}
