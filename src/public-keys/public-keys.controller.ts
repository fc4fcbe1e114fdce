import { Body, Controller, Delete, Get, Param, Post, Query, Version, VERSION_NEUTRAL } from '@nestjs/common';
import { ApiCreatedResponse, ApiOkResponse, ApiOperation, ApiTags } from '@nestjs/swagger';
import { ApiDeletes, DryRun } from '../database/dry-run.dto.js';
import { AskedMembers, type Members } from '../database/json.js';
import { ListQuery } from '../database/list-query.dto.js';
import { ApiProblems } from '../errors/api-problem.js';
import { IdPipe } from '../errors/id.pipe.js';
import { Idempotent } from '../idempotency/idempotency.interceptor.js';
import { type NewRecord, PlannedRecord } from '../idempotency/new-record.js';
import { PublicKey } from './public-key.entity.js';
import { CreatePublicKey } from './public-keys.dto.js';
import { PublicKeysService } from './public-keys.service.js';

@ApiTags('public-keys')
@Controller({ path: 'public-keys', version: ['3', '2', VERSION_NEUTRAL] })
export class PublicKeysController {
  constructor(private readonly keys: PublicKeysService) {}

  @Get()
  @Version('3')
  @ApiOperation({ summary: 'List public keys' })
  @ApiOkResponse({ type: [PublicKey] })
  @ApiProblems(400)
  list(@Query() query: ListQuery) {
    return this.keys.list('all', 'live', query);
  }

  @Get()
  @Version(['2', VERSION_NEUTRAL])
  @ApiOperation({ summary: 'List public keys' })
  @ApiOkResponse({ type: [PublicKey] })
  listAll() {
    return this.keys.list('original');
  }

  @Post()
  @Idempotent()
  @ApiOperation({ summary: 'Register a public key' })
  @ApiCreatedResponse({ type: PublicKey })
  @ApiProblems(400, 415, 422)
  create(@Body() body: CreatePublicKey, @AskedMembers() members: Members, @PlannedRecord() record: NewRecord) {
    return this.keys.create(body, members, record);
  }

  @Get(':id')
  @ApiOperation({ summary: 'Show a public key' })
  @ApiOkResponse({ type: PublicKey })
  @ApiProblems(404)
  get(@Param('id', IdPipe) id: string, @AskedMembers() members: Members) {
    return this.keys.get(id, members);
  }

  @Delete(':id')
  @Version('3')
  @ApiOperation({ summary: 'Delete a public key; its record is kept for recovery' })
  @ApiDeletes()
  @ApiProblems(400, 404)
  markDeleted(@Param('id', IdPipe) id: string, @Query() query: DryRun) {
    return this.keys.markDeleted(query, id);
  }

  @Delete()
  @Version('3')
  @ApiOperation({ summary: 'Delete all public keys; their records are kept for recovery' })
  @ApiDeletes()
  @ApiProblems(400)
  markAllDeleted(@Query() query: DryRun) {
    return this.keys.markDeleted(query);
  }

  @Delete(':id')
  @Version(['2', VERSION_NEUTRAL])
  @ApiOperation({ summary: 'Delete a public key for good' })
  @ApiDeletes()
  @ApiProblems(400, 404)
  purge(@Param('id', IdPipe) id: string, @Query() query: DryRun) {
    return this.keys.purge(query, 'live', id);
  }

  @Delete()
  @Version(['2', VERSION_NEUTRAL])
  @ApiOperation({ summary: 'Delete all public keys for good' })
  @ApiDeletes()
  purgeAll(@Query() query: DryRun) {
    return this.keys.purge(query, 'live');
  }
}
