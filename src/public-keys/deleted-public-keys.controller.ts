import { Body, Controller, Delete, Get, HttpCode, Param, Patch } from '@nestjs/common';
import { ApiNoContentResponse, ApiOkResponse, ApiOperation, ApiTags } from '@nestjs/swagger';
import { OnlyExisting } from '../database/record-exists.guard.js';
import { Undelete } from '../database/undelete.dto.js';
import { ApiProblems } from '../errors/api-problem.js';
import { IdPipe } from '../errors/id.pipe.js';
import { PublicKey } from './public-key.entity.js';
import { PublicKeysService } from './public-keys.service.js';

@ApiTags('deleted public-keys')
@Controller({ path: 'deleted/public-keys', version: '3' })
export class DeletedPublicKeysController {
  constructor(private readonly keys: PublicKeysService) {}

  @Get()
  @ApiOperation({ summary: 'List deleted public keys' })
  @ApiOkResponse({ type: [PublicKey] })
  list() {
    return this.keys.list('all', 'deleted');
  }

  @Patch()
  @HttpCode(204)
  @ApiOperation({ summary: 'Bring all deleted public keys back' })
  @ApiNoContentResponse()
  @ApiProblems(400, 415, 422)
  undeleteAll(@Body() _body: Undelete) {
    return this.keys.undelete();
  }

  @Delete()
  @HttpCode(204)
  @ApiOperation({ summary: 'Remove all deleted public keys for good' })
  @ApiNoContentResponse()
  purgeAll() {
    return this.keys.purge('deleted');
  }

  @Get(':id')
  @ApiOperation({ summary: 'Show a deleted public key' })
  @ApiOkResponse({ type: PublicKey })
  @ApiProblems(404)
  get(@Param('id', IdPipe) id: string) {
    return this.keys.get(id, 'all', 'deleted');
  }

  @Patch(':id')
  @OnlyExisting(PublicKeysService, 'deleted')
  @HttpCode(204)
  @ApiOperation({ summary: 'Bring a deleted public key back' })
  @ApiNoContentResponse()
  @ApiProblems(400, 404, 415, 422)
  undelete(@Param('id', IdPipe) id: string, @Body() _body: Undelete) {
    return this.keys.undelete(id);
  }

  @Delete(':id')
  @HttpCode(204)
  @ApiOperation({ summary: 'Remove a deleted public key for good' })
  @ApiNoContentResponse()
  @ApiProblems(404)
  purge(@Param('id', IdPipe) id: string) {
    return this.keys.purge('deleted', id);
  }
}
