import { Body, Controller, Delete, Get, Param, Patch, Query } from '@nestjs/common';
import { ApiNoContentResponse, ApiOkResponse, ApiOperation, ApiTags } from '@nestjs/swagger';
import { ApiDeletes, DryRun } from '../database/dry-run.dto.js';
import { ListQuery } from '../database/list-query.dto.js';
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
  @ApiProblems(400)
  list(@Query() query: ListQuery) {
    return this.keys.list('all', 'deleted', query);
  }

  @Patch()
  @ApiOperation({ summary: 'Bring all deleted public keys back' })
  @ApiNoContentResponse()
  @ApiProblems(400, 415, 422)
  undeleteAll(@Body() _body: Undelete) {
    return this.keys.undelete();
  }

  @Delete()
  @ApiOperation({ summary: 'Remove all deleted public keys for good' })
  @ApiDeletes()
  @ApiProblems(400)
  purgeAll(@Query() query: DryRun) {
    return this.keys.purge(query, 'deleted');
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
  @ApiOperation({ summary: 'Bring a deleted public key back' })
  @ApiNoContentResponse()
  @ApiProblems(400, 404, 415, 422)
  undelete(@Param('id', IdPipe) id: string, @Body() _body: Undelete) {
    return this.keys.undelete(id);
  }

  @Delete(':id')
  @ApiOperation({ summary: 'Remove a deleted public key for good' })
  @ApiDeletes()
  @ApiProblems(400, 404)
  purge(@Param('id', IdPipe) id: string, @Query() query: DryRun) {
    return this.keys.purge(query, 'deleted', id);
  }
}
