import { ApiProperty } from '@nestjs/swagger';
import { OneOf } from '../errors/members.js';

/** What a client sends to bring deleted records back. */
export class Undelete {
  @OneOf(['undelete'])
  @ApiProperty({ enum: ['undelete'] })
  operation: string;
}
