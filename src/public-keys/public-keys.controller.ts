import { Body, Controller, Delete, Get, HttpCode, Param, Post, Version, VERSION_NEUTRAL } from '@nestjs/common';
import { ApiCreatedResponse, ApiNoContentResponse, ApiOkResponse, ApiOperation, ApiTags } from '@nestjs/swagger';
import { AskedMembers, type Members } from '../database/json.js';
import { ApiProblems } from '../errors/api-problem.js';
import { IdPipe } from '../errors/id.pipe.js';
import { PublicKey } from './public-key.entity.js';
import { CreatePublicKey } from './public-keys.dto.js';
import { PublicKeysService } from './public-keys.service.js';

@ApiTags('public-keys')
@Controller({ path: 'public-keys', version: ['3', '2', VERSION_NEUTRAL] })
export class PublicKeysController {
  constructor(private readonly keys: PublicKeysService) {}

  @Get()
  @ApiOperation({ summary: 'List public keys' })
  @ApiOkResponse({ type: [PublicKey] })
  list(@AskedMembers() members: Members) {
    return this.keys.list(members);
  }

  @Post()
  @ApiOperation({ summary: 'Register a public key' })
  @ApiCreatedResponse({ type: PublicKey })
  @ApiProblems(400, 415, 422)
  create(@Body() body: CreatePublicKey, @AskedMembers() members: Members) {
    return this.keys.create(body, members);
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
  @HttpCode(204)
  @ApiOperation({ summary: 'Delete a public key; its record is kept for recovery' })
  @ApiNoContentResponse()
  @ApiProblems(404)
  markDeleted(@Param('id', IdPipe) id: string) {
    return this.keys.markDeleted(id);
  }

  @Delete()
  @Version('3')
  @HttpCode(204)
  @ApiOperation({ summary: 'Delete all public keys; their records are kept for recovery' })
  @ApiNoContentResponse()
  markAllDeleted() {
    return this.keys.markDeleted();
  }

  @Delete(':id')
  @Version(['2', VERSION_NEUTRAL])
  @HttpCode(204)
  @ApiOperation({ summary: 'Delete a public key for good' })
  @ApiNoContentResponse()
  @ApiProblems(404)
  purge(@Param('id', IdPipe) id: string) {
    return this.keys.purge('live', id);
  }

  @Delete()
  @Version(['2', VERSION_NEUTRAL])
  @HttpCode(204)
  @ApiOperation({ summary: 'Delete all public keys for good' })
  @ApiNoContentResponse()
  purgeAll() {
    return this.keys.purge('live');
  }
}
