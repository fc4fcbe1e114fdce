import { applyDecorators } from '@nestjs/common';
import { ApiNoContentResponse, ApiOkResponse, ApiProperty } from '@nestjs/swagger';
import { Bool, Optional } from '../errors/members.js';

/** Whether a request is only to say what it would do. */
export class DryRun {
  @Optional()
  @Bool()
  @ApiProperty({
    required: false,
    default: false,
    description: 'Whether only to answer (200) with the records that the request is about, and to change nothing.',
  })
  dry_run?: boolean;
}

/** Documents what a request answers that deletes. */
export function ApiDeletes(): MethodDecorator {
  return applyDecorators(
    ApiNoContentResponse({ description: 'Deleted.' }),
    ApiOkResponse({ description: 'With `dry_run`: what would be deleted.' }),
  );
}
