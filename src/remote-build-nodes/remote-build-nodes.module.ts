import { Module } from '@nestjs/common';
import { TypeOrmModule } from '@nestjs/typeorm';
import type { Config } from '../config/config.js';
import { CONFIG } from '../config/config.module.js';
import { NodeProbe } from './node-probe.js';
import { RemoteBuildNode } from './remote-build-node.entity.js';
import { RemoteBuildNodesController } from './remote-build-nodes.controller.js';
import { RemoteBuildNodesService } from './remote-build-nodes.service.js';
import { SshNodeProbe } from './ssh-node-probe.js';

@Module({
  imports: [TypeOrmModule.forFeature([RemoteBuildNode])],
  controllers: [RemoteBuildNodesController],
  providers: [
    RemoteBuildNodesService,
    {
      provide: NodeProbe,
      inject: [CONFIG],
      useFactory: (config: Config) => new SshNodeProbe(config.remoteNodeKeyFile),
    },
  ],
})
export class RemoteBuildNodesModule {}
