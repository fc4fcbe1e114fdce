import { ApiProperty } from '@nestjs/swagger';
import { Bool, Optional, Text } from '../errors/members.js';

/** Which part of the logs of a job a client asks for. */
export class LogsQuery {
  @Optional()
  @Text()
  @ApiProperty({ required: false, description: 'One container only.', example: 'buildenv-sidecar' })
  container?: string;

  @Optional()
  @Bool()
  @ApiProperty({ required: false, default: false, description: 'Whether the answer goes on while the job runs.' })
  follow?: boolean;

  @Optional()
  @Text()
  @ApiProperty({
    required: false,
    description:
      'What was read already: bytes of the log of the container, or the id of the last server-sent event. Also as the header Last-Event-ID.',
    example: '1024',
  })
  from?: string;
}
