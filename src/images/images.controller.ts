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
  Version,
  VERSION_NEUTRAL,
} from '@nestjs/common';
import { ApiCreatedResponse, ApiNoContentResponse, ApiOkResponse, ApiOperation, ApiTags } from '@nestjs/swagger';
import { AskedMembers, type Members } from '../database/json.js';
import { Purge } from '../database/purge.dto.js';
import { OnlyExisting } from '../database/record-exists.guard.js';
import { ApiProblems } from '../errors/api-problem.js';
import { IdPipe } from '../errors/id.pipe.js';
import { Image } from './image.entity.js';
import { CreateImage, CreateImageOfJob, UpdateImage } from './images.dto.js';
import { ImagesService } from './images.service.js';

@ApiTags('images')
@Controller({ path: 'images', version: ['3', '2', VERSION_NEUTRAL] })
export class ImagesController {
  constructor(private readonly images: ImagesService) {}

  @Get()
  @ApiOperation({ summary: 'List images' })
  @ApiOkResponse({ type: [Image] })
  list(@AskedMembers() members: Members) {
    return this.images.list(members);
  }

  @Post()
  @Version('3')
  @ApiOperation({ summary: 'Register an image' })
  @ApiCreatedResponse({ type: Image })
  @ApiProblems(400, 415, 422)
  createOfJob(@Body() body: CreateImageOfJob) {
    return this.images.create(body, 'all');
  }

  @Post()
  @Version(['2', VERSION_NEUTRAL])
  @ApiOperation({ summary: 'Register an image' })
  @ApiCreatedResponse({ type: Image })
  @ApiProblems(400, 415, 422)
  create(@Body() body: CreateImage) {
    return this.images.create(body, 'original');
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
  @HttpCode(204)
  @ApiOperation({ summary: 'Delete an image; its record is kept for recovery' })
  @ApiNoContentResponse()
  @ApiProblems(404)
  markDeleted(@Param('id', IdPipe) id: string) {
    return this.images.markDeleted(id);
  }

  @Delete()
  @Version('3')
  @HttpCode(204)
  @ApiOperation({ summary: 'Delete all images; their records are kept for recovery' })
  @ApiNoContentResponse()
  markAllDeleted() {
    return this.images.markDeleted();
  }

  @Delete(':id')
  @Version(['2', VERSION_NEUTRAL])
  @HttpCode(204)
  @ApiOperation({ summary: 'Delete an image and its artifacts for good' })
  @ApiNoContentResponse()
  @ApiProblems(404)
  purge(@Param('id', IdPipe) id: string, @Query() query: Purge) {
    return this.images.purge('live', query.cascade ?? true, id);
  }

  @Delete()
  @Version(['2', VERSION_NEUTRAL])
  @HttpCode(204)
  @ApiOperation({ summary: 'Delete all images and their artifacts for good' })
  @ApiNoContentResponse()
  purgeAll(@Query() query: Purge) {
    return this.images.purge('live', query.cascade ?? true);
  }
}
