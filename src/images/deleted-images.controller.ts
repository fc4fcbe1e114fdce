import { Body, Controller, Delete, Get, Param, Patch, Query } from '@nestjs/common';
import { ApiNoContentResponse, ApiOkResponse, ApiOperation, ApiTags } from '@nestjs/swagger';
import { ApiDeletes, DryRun } from '../database/dry-run.dto.js';
import { OnlyExisting } from '../database/record-exists.guard.js';
import { Undelete } from '../database/undelete.dto.js';
import { ApiProblems } from '../errors/api-problem.js';
import { IdPipe } from '../errors/id.pipe.js';
import { Image } from './image.entity.js';
import { ImagesQuery } from './images.dto.js';
import { ImagesService } from './images.service.js';

@ApiTags('deleted images')
@Controller({ path: 'deleted/images', version: '3' })
export class DeletedImagesController {
  constructor(private readonly images: ImagesService) {}

  @Get()
  @ApiOperation({ summary: 'List deleted images' })
  @ApiOkResponse({ type: [Image] })
  @ApiProblems(400)
  list(@Query() query: ImagesQuery) {
    return this.images.list('all', 'deleted', query);
  }

  @Patch()
  @ApiOperation({ summary: 'Bring all deleted images back' })
  @ApiNoContentResponse()
  @ApiProblems(400, 409, 415, 422)
  undeleteAll(@Body() _body: Undelete) {
    return this.images.undelete();
  }

  @Delete()
  @ApiOperation({ summary: 'Remove all deleted images for good' })
  @ApiDeletes()
  @ApiProblems(400)
  purgeAll(@Query() query: DryRun) {
    return this.images.purge(query, 'deleted');
  }

  @Get(':id')
  @ApiOperation({ summary: 'Show a deleted image' })
  @ApiOkResponse({ type: Image })
  @ApiProblems(404)
  get(@Param('id', IdPipe) id: string) {
    return this.images.get(id, 'all', 'deleted');
  }

  @Patch(':id')
  @OnlyExisting(ImagesService, 'deleted')
  @ApiOperation({ summary: 'Bring a deleted image back' })
  @ApiNoContentResponse()
  @ApiProblems(400, 404, 409, 415, 422)
  undelete(@Param('id', IdPipe) id: string, @Body() _body: Undelete) {
    return this.images.undelete(id);
  }

  @Delete(':id')
  @ApiOperation({ summary: 'Remove a deleted image for good' })
  @ApiDeletes()
  @ApiProblems(400, 404)
  purge(@Param('id', IdPipe) id: string, @Query() query: DryRun) {
    return this.images.purge(query, 'deleted', id);
  }
}
