import { Controller, Get, Param, Query, Res } from '@nestjs/common';
import { ApiOkResponse, ApiOperation, ApiProduces, ApiTags } from '@nestjs/swagger';
import type { FastifyReply } from 'fastify';
import { ApiProblems } from '../errors/api-problem.js';
import { IdPipe } from '../errors/id.pipe.js';
import { JobEvent } from './job-event.entity.js';
import { LogsQuery } from './job-streams.dto.js';
import { JobStreams } from './job-streams.service.js';

@ApiTags('jobs')
@Controller({ path: 'jobs/:id', version: '3' })
export class JobStreamsController {
  constructor(private readonly streams: JobStreams) {}

  @Get('events')
  @ApiOperation({
    summary: 'Tell what happened to a job',
    description:
      'A list; with `Accept: text/event-stream` a stream that goes on until the job ends, and goes on after the event that `Last-Event-ID` names.',
  })
  @ApiProduces('application/json', 'text/event-stream')
  @ApiOkResponse({ type: [JobEvent] })
  @ApiProblems(400, 404)
  events(@Param('id', IdPipe) id: string, @Res({ passthrough: true }) reply: FastifyReply) {
    return this.streams.events(id, reply);
  }

  @Get('logs')
  @ApiOperation({
    summary: 'Show what the containers of a job print, while it runs and after',
    description: 'Plain text; with `Accept: text/event-stream` an event for each line.',
  })
  @ApiProduces('text/plain', 'text/event-stream')
  @ApiOkResponse({ schema: { type: 'string' } })
  @ApiProblems(400, 404, 503)
  logs(@Param('id', IdPipe) id: string, @Query() query: LogsQuery, @Res({ passthrough: true }) reply: FastifyReply) {
    return this.streams.log(id, query, reply);
  }
}
