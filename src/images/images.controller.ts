import { Body, Controller, Delete, Get, Param, Patch, Post, Query, Version, VERSION_NEUTRAL } from '@nestjs/common';
import { ApiCreatedResponse, ApiOkResponse, ApiOperation, ApiTags } from '@nestjs/swagger';
import { ApiDeletes, DryRun } from '../database/dry-run.dto.js';
import { AskedMembers, type Members } from '../database/json.js';
import { Purge } from '../database/purge.dto.js';
import { OnlyExisting } from '../database/record-exists.guard.js';
import { ApiProblems } from '../errors/api-problem.js';
import { IdPipe } from '../errors/id.pipe.js';
import { Idempotent } from '../idempotency/idempotency.interceptor.js';
import { type NewRecord, PlannedRecord } from '../idempotency/new-record.js';
import { Image } from './image.entity.js';
import { CreateImage, CreateImageOfJob, ImagesQuery, UpdateImage } from './images.dto.js';
import { ImagesService } from './images.service.js';

@ApiTags('images')
@Controller({ path: 'images', version: ['3', '2', VERSION_NEUTRAL] })
export class ImagesController {
  constructor(private readonly images: ImagesService) {}

  @Get()
  @Version('3')
  @ApiOperation({ summary: 'List images' })
  @ApiOkResponse({ type: [Image] })
  @ApiProblems(400)
  list(@Query() query: ImagesQuery) {
    return this.images.list('all', 'live', query);
  }

  @Get()
  @Version(['2', VERSION_NEUTRAL])
  @ApiOperation({ summary: 'List images' })
  @ApiOkResponse({ type: [Image] })
  listAll() {
    return this.images.list('original');
  }

  @Post()
  @Idempotent()
  @Version('3')
  @ApiOperation({ summary: 'Register an image' })
  @ApiCreatedResponse({ type: Image })
  @ApiProblems(400, 415, 422)
  createOfJob(@Body() body: CreateImageOfJob, @PlannedRecord() record: NewRecord) {
    return this.images.create(body, 'all', record);
  }

  @Post()
  @Idempotent()
  @Version(['2', VERSION_NEUTRAL])
  @ApiOperation({ summary: 'Register an image' })
  @ApiCreatedResponse({ type: Image })
  @ApiProblems(400, 415, 422)
  create(@Body() body: CreateImage, @PlannedRecord() record: NewRecord) {
    return this.images.create(body, 'original', record);
  }

  @Get(':id')
  @ApiOperation({ summary: 'Show an image' })
  @ApiOkResponse({ type: Image })
  @ApiProblems(404)
  get(@Param('id', IdPipe) id: string, @AskedMembers() members: Members) {
    return this.images.get(id, members);
  }

  @Patch(':id')
  @OnlyExisting(ImagesService)
  @ApiOperation({ summary: 'Link an image to its manifest, or set or remove a tag' })
  @ApiOkResponse({ type: Image })
  @ApiProblems(400, 404, 409, 415, 422)
  update(@Param('id', IdPipe) id: string, @Body() body: UpdateImage, @AskedMembers() members: Members) {
    return this.images.update(id, body, members);
  }

  @Delete(':id')
  @Version('3')
  @ApiOperation({ summary: 'Delete an image; its record is kept for recovery' })
  @ApiDeletes()
  @ApiProblems(400, 404)
  markDeleted(@Param('id', IdPipe) id: string, @Query() query: DryRun) {
    return this.images.markDeleted(query, id);
  }

  @Delete()
  @Version('3')
  @ApiOperation({ summary: 'Delete all images; their records are kept for recovery' })
  @ApiDeletes()
  @ApiProblems(400)
  markAllDeleted(@Query() query: DryRun) {
    return this.images.markDeleted(query);
  }

  @Delete(':id')
  @Version(['2', VERSION_NEUTRAL])
  @ApiOperation({ summary: 'Delete an image and its artifacts for good' })
  @ApiDeletes()
  @ApiProblems(404)
  purge(@Param('id', IdPipe) id: string, @Query() query: Purge) {
    return this.images.purge(query, 'live', id);
  }

  @Delete()
  @Version(['2', VERSION_NEUTRAL])
  @ApiOperation({ summary: 'Delete all images and their artifacts for good' })
  @ApiDeletes()
  purgeAll(@Query() query: Purge) {
    return this.images.purge(query, 'live');
  }
}
