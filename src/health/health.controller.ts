import { Controller, Get, VERSION_NEUTRAL } from '@nestjs/common';
import { ApiOkResponse, ApiOperation, ApiTags } from '@nestjs/swagger';
import { ApiProblems } from '../errors/api-problem.js';
import { HealthService } from './health.service.js';
import { SERVICE_VERSION } from './service-version.js';

@ApiTags('service')
@Controller({ version: VERSION_NEUTRAL })
export class HealthController {
  constructor(private readonly health: HealthService) {}

  @Get('healthz/live')
  @ApiOperation({ summary: 'Whether the process answers' })
  @ApiOkResponse({ description: 'It does.' })
  live() {
    return {};
  }

  @Get('healthz/serving')
  @ApiOperation({ summary: 'Whether records can be read and jobs can report: the database works' })
  @ApiOkResponse({ description: 'It does.' })
  @ApiProblems(503)
  serving() {
    return this.health.serving();
  }

  @Get('healthz/ready')
  @ApiOperation({ summary: 'Whether database, artifact store and job launcher work' })
  @ApiOkResponse({ description: 'They do.' })
  @ApiProblems(503)
  ready() {
    return this.health.ready();
  }

  @Get('version')
  @ApiOperation({ summary: 'Version of the service' })
  @ApiOkResponse({ schema: { type: 'object', properties: { version: { type: 'string', example: '3.0.0' } } } })
  version() {
    return { version: SERVICE_VERSION };
  }
}
