import { Body, Controller, Delete, Get, HttpCode, Param, Post } from '@nestjs/common';
import { ApiCreatedResponse, ApiNoContentResponse, ApiOkResponse, ApiOperation, ApiTags } from '@nestjs/swagger';
import { ApiProblems } from '../errors/api-problem.js';
import { RemoteBuildNode } from './remote-build-node.entity.js';
import { CreateRemoteBuildNode, RemoteBuildNodeStatus } from './remote-build-nodes.dto.js';
import { RemoteBuildNodesService } from './remote-build-nodes.service.js';

@ApiTags('remote-build-nodes')
@Controller({ path: 'remote-build-nodes', version: '3' })
export class RemoteBuildNodesController {
  constructor(private readonly nodes: RemoteBuildNodesService) {}

  @Get()
  @ApiOperation({ summary: 'List remote build nodes' })
  @ApiOkResponse({ type: [RemoteBuildNode] })
  list() {
    return this.nodes.list();
  }

  @Post()
  @ApiOperation({ summary: 'Register a remote build node' })
  @ApiCreatedResponse({ type: RemoteBuildNode })
  @ApiProblems(400, 415, 422)
  create(@Body() body: CreateRemoteBuildNode) {
    return this.nodes.create(body);
  }

  @Delete()
  @HttpCode(204)
  @ApiOperation({ summary: 'Delete all remote build nodes' })
  @ApiNoContentResponse()
  deleteAll() {
    return this.nodes.deleteAll();
  }

  @Get('status')
  @ApiOperation({ summary: 'Ask all remote build nodes how they are' })
  @ApiOkResponse({ type: [RemoteBuildNodeStatus] })
  statuses() {
    return this.nodes.statuses();
  }

  @Get('status/:xname')
  @ApiOperation({ summary: 'Ask a remote build node how it is' })
  @ApiOkResponse({ type: RemoteBuildNodeStatus })
  @ApiProblems(404)
  status(@Param('xname') xname: string) {
    return this.nodes.status(xname);
  }

  @Get(':xname')
  @ApiOperation({ summary: 'Show a remote build node' })
  @ApiOkResponse({ type: RemoteBuildNode })
  @ApiProblems(404)
  get(@Param('xname') xname: string) {
    return this.nodes.get(xname);
  }

  @Delete(':xname')
  @HttpCode(204)
  @ApiOperation({ summary: 'Delete a remote build node' })
  @ApiNoContentResponse()
  @ApiProblems(404)
  delete(@Param('xname') xname: string) {
    return this.nodes.delete(xname);
  }
}
