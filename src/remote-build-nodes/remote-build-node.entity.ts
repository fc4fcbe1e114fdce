import { ApiProperty } from '@nestjs/swagger';
import { Column, Entity, PrimaryColumn } from 'typeorm';
import { Hidden } from '../database/wire.js';
import { HostName } from '../errors/members.js';

/** A machine of the site on which jobs of its own architecture can be run. */
@Entity('remote_build_nodes')
export class RemoteBuildNode {
  @PrimaryColumn('text')
  @HostName()
  @ApiProperty({ description: 'The xname of the machine, or its host name.', example: 'x3000c0s19b1n0' })
  xname: string;

  @Column('timestamptz', { default: () => 'now()' })
  @Hidden()
  created: Date;
}
