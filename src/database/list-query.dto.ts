import { ApiProperty } from '@nestjs/swagger';
import { OneOf, Optional, PositiveInteger, Text, Timestamp } from '../errors/members.js';
import { ARCHES, type Arch } from '../protocol/arch.js';

/** Most records of one page. */
export const PAGE_LIMIT = 10_000;

/** Which records a list of version 3 has; without any of these it has all. */
export class ListQuery {
  @Optional()
  @PositiveInteger({ limit: PAGE_LIMIT })
  @ApiProperty({
    required: false,
    type: 'integer',
    minimum: 1,
    maximum: PAGE_LIMIT,
    description: 'Most records of the answer. Where there are more, the header Link (RFC 8288) names the next page.',
  })
  limit?: number;

  @Optional()
  @Text()
  @ApiProperty({
    required: false,
    description: 'Where the page begins, as the Link header of the page before gives it.',
  })
  after?: string;

  @Optional()
  @Text()
  @ApiProperty({ required: false, description: 'Only records of this name.' })
  name?: string;

  @Optional()
  @Text()
  @ApiProperty({ required: false, description: 'Only records whose name begins so.' })
  name_prefix?: string;

  @Optional()
  @Timestamp()
  @ApiProperty({ required: false, format: 'date-time', description: 'Only records created before this time.' })
  created_before?: string;

  @Optional()
  @Timestamp()
  @ApiProperty({ required: false, format: 'date-time', description: 'Only records created after this time.' })
  created_after?: string;
}

/** Which recipes or images a list has. */
export class BuiltListQuery extends ListQuery {
  @Optional()
  @OneOf(ARCHES)
  @ApiProperty({ required: false, enum: ARCHES, description: 'Only records of this architecture.' })
  arch?: Arch;
}
