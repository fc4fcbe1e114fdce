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
import { ImageExists } from './image-exists.guard.js';
import { Image } from './image.entity.js';
import { CreateImage, CreateImageOfJob, Purge, UpdateImage } from './images.dto.js';
import { ImagesService } from './images.service.js';

@ApiTags('images')
@Controller({ path: 'images', version: ['3', '2', VERSION_NEUTRAL] })
export class ImagesController {
  constructor(private readonly images: ImagesService) {}

  @Get()
  @ApiOperation({ summary: 'List images' })
  @ApiOkResponse({ type: [Image] })
  list() {
    return this.images.list();
  }

  @Post()
  @Version('3')
  @ApiOperation({ summary: 'Register an image' })
  @ApiCreatedResponse({ type: Image })
  @ApiProblems(400, 415, 422)
  createOfJob(@Body() body: CreateImageOfJob) {
    return this.images.create(body);
  }

  @Post()
  @Version(['2', VERSION_NEUTRAL])
  @ApiOperation({ summary: 'Register an image' })
  @ApiCreatedResponse({ type: Image })
  @ApiProblems(400, 415, 422)
  create(@Body() body: CreateImage) {
    return this.images.create(body);
  }

  @Get(':id')
  @ApiOperation({ summary: 'Show an image' })
  @ApiOkResponse({ type: Image })
  @ApiProblems(404)
  get(@Param('id', IdPipe) id: string) {
    return this.images.get(id);
  }

  @Patch(':id')
  @UseGuards(ImageExists)
  @ApiOperation({ summary: 'Link an image to its manifest, or set or remove a tag' })
  @ApiOkResponse({ type: Image })
  @ApiProblems(400, 404, 409, 415, 422)
  update(@Param('id', IdPipe) id: string, @Body() body: UpdateImage) {
    return this.images.update(id, body);
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
    return this.images.markAllDeleted();
  }

  @Delete(':id')
  @Version(['2', VERSION_NEUTRAL])
  @HttpCode(204)
  @ApiOperation({ summary: 'Delete an image and its artifacts for good' })
  @ApiNoContentResponse()
  @ApiProblems(404)
  purge(@Param('id', IdPipe) id: string, @Query() query: Purge) {
    return this.images.purge(id, query.cascade ?? true);
  }

  @Delete()
  @Version(['2', VERSION_NEUTRAL])
  @HttpCode(204)
  @ApiOperation({ summary: 'Delete all images and their artifacts for good' })
  @ApiNoContentResponse()
  purgeAll(@Query() query: Purge) {
    return this.images.purgeAll(query.cascade ?? true);
  }
}
