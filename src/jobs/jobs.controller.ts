import {
  Body,
  Controller,
  Delete,
  Get,
  HttpCode,
  Param,
  Patch,
  Post,
  Query,
  UseGuards,
  Version,
  VERSION_NEUTRAL,
} from '@nestjs/common';
import { ApiCreatedResponse, ApiNoContentResponse, ApiOkResponse, ApiOperation, ApiTags } from '@nestjs/swagger';
import { ApiProblems } from '../errors/api-problem.js';
import { IdPipe } from '../errors/id.pipe.js';
import { Job } from './job.entity.js';
import { JobExists } from './job-exists.guard.js';
import { CreateJob, JobsQuery, ReportJob, UpdateJob } from './jobs.dto.js';
import { JobsService } from './jobs.service.js';

@ApiTags('jobs')
@Controller({ path: 'jobs', version: ['3', '2', VERSION_NEUTRAL] })
export class JobsController {
  constructor(private readonly jobs: JobsService) {}

  @Get()
  @ApiOperation({ summary: 'List jobs' })
  @ApiOkResponse({ type: [Job] })
  list() {
    return this.jobs.list();
  }

  @Post()
  @ApiOperation({ summary: 'Start a job' })
  @ApiCreatedResponse({ type: Job })
  @ApiProblems(400, 415, 422, 503)
  create(@Body() body: CreateJob) {
    return this.jobs.create(body);
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
  @HttpCode(204)
  @ApiOperation({ summary: 'Delete a job, end it where it runs, and remove all that it left but its image' })
  @ApiNoContentResponse()
  @ApiProblems(404)
  delete(@Param('id', IdPipe) id: string) {
    return this.jobs.delete(id);
  }

  @Delete()
  @HttpCode(204)
  @ApiOperation({ summary: 'Delete all jobs of some kinds, statuses or age' })
  @ApiNoContentResponse()
  @ApiProblems(400)
  deleteMany(@Query() query: JobsQuery) {
    return this.jobs.deleteMany(query);
  }
}
