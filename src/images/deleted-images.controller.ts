import { Body, Controller, Delete, Get, HttpCode, Param, Patch } from '@nestjs/common';
import { ApiNoContentResponse, ApiOkResponse, ApiOperation, ApiTags } from '@nestjs/swagger';
import { OnlyExisting } from '../database/record-exists.guard.js';
import { Undelete } from '../database/undelete.dto.js';
import { ApiProblems } from '../errors/api-problem.js';
import { IdPipe } from '../errors/id.pipe.js';
import { Image } from './image.entity.js';
import { ImagesService } from './images.service.js';

@ApiTags('deleted images')
@Controller({ path: 'deleted/images', version: '3' })
export class DeletedImagesController {
  constructor(private readonly images: ImagesService) {}

  @Get()
  @ApiOperation({ summary: 'List deleted images' })
  @ApiOkResponse({ type: [Image] })
  list() {
    return this.images.list('all', 'deleted');
  }

  @Patch()
  @HttpCode(204)
  @ApiOperation({ summary: 'Bring all deleted images back' })
  @ApiNoContentResponse()
  @ApiProblems(400, 409, 415, 422)
  undeleteAll(@Body() _body: Undelete) {
    return this.images.undelete();
  }

  @Delete()
  @HttpCode(204)
  @ApiOperation({ summary: 'Remove all deleted images for good' })
  @ApiNoContentResponse()
  purgeAll() {
    return this.images.purge('deleted', true);
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
  @HttpCode(204)
  @ApiOperation({ summary: 'Bring a deleted image back' })
  @ApiNoContentResponse()
  @ApiProblems(400, 404, 409, 415, 422)
  undelete(@Param('id', IdPipe) id: string, @Body() _body: Undelete) {
    return this.images.undelete(id);
  }

  @Delete(':id')
  @HttpCode(204)
  @ApiOperation({ summary: 'Remove a deleted image for good' })
  @ApiNoContentResponse()
  @ApiProblems(404)
  purge(@Param('id', IdPipe) id: string) {
    return this.images.purge('deleted', true, id);
  }
}
