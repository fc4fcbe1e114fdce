import { ApiProperty } from '@nestjs/swagger';
import { Bool, Optional } from '../errors/members.js';

/** How a record is deleted for good. */
export class Purge {
  @Optional()
  @Bool()
  @ApiProperty({ required: false, default: true, description: 'Whether the artifacts go too.' })
  cascade?: boolean;
}
