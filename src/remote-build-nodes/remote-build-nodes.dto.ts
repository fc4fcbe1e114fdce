import { ApiProperty, PickType } from '@nestjs/swagger';
import { RemoteBuildNode } from './remote-build-node.entity.js';

/** What a client sends to register a remote build node. */
export class CreateRemoteBuildNode extends PickType(RemoteBuildNode, ['xname'] as const) {}

/** What a remote build node says of itself. */
export class RemoteBuildNodeStatus {
  @ApiProperty({ example: 'x3000c0s19b1n0' })
  xname: string;

  @ApiProperty({ description: 'Whether it can be reached by ssh, or why not.', example: 'Able to connect to node.' })
  sshStatus: string;

  @ApiProperty({ description: 'Whether podman is there, or why not.', example: 'Podman present: 4.9.5' })
  podmanStatus: string;

  @ApiProperty({ example: 'aarch64' })
  nodeArch: string;

  @ApiProperty({ type: 'integer', description: 'Jobs that run there; -1 where that is not known.', example: 0 })
  numCurrentJobs: number;

  @ApiProperty()
  ableToRunJobs: boolean;
}
