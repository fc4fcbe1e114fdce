import {
  Body,
  Controller,
  Delete,
  Get,
  Param,
  Patch,
  Post,
  Query,
  UseGuards,
  Version,
  VERSION_NEUTRAL,
} from '@nestjs/common';
import { ApiCreatedResponse, ApiOkResponse, ApiOperation, ApiTags } from '@nestjs/swagger';
import { ApiDeletes, DryRun } from '../database/dry-run.dto.js';
import { ApiProblems } from '../errors/api-problem.js';
import { IdPipe } from '../errors/id.pipe.js';
import { Idempotent } from '../idempotency/idempotency.interceptor.js';
import { type NewRecord, PlannedRecord } from '../idempotency/new-record.js';
import { Job } from './job.entity.js';
import { JobExists } from './job-exists.guard.js';
import { CreateJob, JobsListQuery, JobsQuery, ReportJob, UpdateJob } from './jobs.dto.js';
import { JobsService } from './jobs.service.js';

@ApiTags('jobs')
@Controller({ path: 'jobs', version: ['3', '2', VERSION_NEUTRAL] })
export class JobsController {
  constructor(private readonly jobs: JobsService) {}

  @Get()
  @Version('3')
  @ApiOperation({ summary: 'List jobs' })
  @ApiOkResponse({ type: [Job] })
  @ApiProblems(400)
  list(@Query() query: JobsListQuery) {
    return this.jobs.list(query);
  }

  @Get()
  @Version(['2', VERSION_NEUTRAL])
  @ApiOperation({ summary: 'List jobs' })
  @ApiOkResponse({ type: [Job] })
  listAll() {
    return this.jobs.list({});
  }

  @Post()
  @Idempotent()
  @ApiOperation({ summary: 'Start a job' })
  @ApiCreatedResponse({ type: Job })
  @ApiOkResponse({ type: Job, description: 'With `dry_run`: the job that would be started.' })
  @ApiProblems(400, 409, 415, 422, 503)
  create(@Body() body: CreateJob, @Query() query: DryRun, @PlannedRecord() record: NewRecord) {
    return this.jobs.create(body, query, record);
  }

  @Get(':id')
  @ApiOperation({ summary: 'Show a job' })
  @ApiOkResponse({ type: Job })
  @ApiProblems(404)
  get(@Param('id', IdPipe) id: string) {
    return this.jobs.get(id);
  }

  @Patch(':id')
  @Version('3')
  @UseGuards(JobExists)
  @ApiOperation({ summary: 'Tell how far a job is' })
  @ApiOkResponse({ type: Job })
  @ApiProblems(400, 404, 409, 415, 422)
  report(@Param('id', IdPipe) id: string, @Body() body: ReportJob) {
    return this.jobs.update(id, body);
  }

  @Patch(':id')
  @Version(['2', VERSION_NEUTRAL])
  @UseGuards(JobExists)
  @ApiOperation({ summary: 'Tell how far a job is' })
  @ApiOkResponse({ type: Job })
  @ApiProblems(400, 404, 409, 415, 422)
  update(@Param('id', IdPipe) id: string, @Body() body: UpdateJob) {
    return this.jobs.update(id, body);
  }

  @Delete(':id')
  @ApiOperation({ summary: 'Delete a job, end it where it runs, and remove all that it left but its image' })
  @ApiDeletes()
  @ApiProblems(400, 404)
  delete(@Param('id', IdPipe) id: string, @Query() query: DryRun) {
    return this.jobs.delete(id, query);
  }

  @Delete()
  @ApiOperation({ summary: 'Delete all jobs of some kinds, statuses or age' })
  @ApiDeletes()
  @ApiProblems(400)
  deleteMany(@Query() query: JobsQuery) {
    return this.jobs.deleteMany(query);
  }
}
