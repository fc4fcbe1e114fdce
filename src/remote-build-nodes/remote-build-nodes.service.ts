import { Injectable } from '@nestjs/common';
import { InjectRepository } from '@nestjs/typeorm';
import { Repository } from 'typeorm';
import { problems } from '../errors/problems.js';
import { NodeProbe } from './node-probe.js';
import { RemoteBuildNode } from './remote-build-node.entity.js';
import type { CreateRemoteBuildNode, RemoteBuildNodeStatus } from './remote-build-nodes.dto.js';

@Injectable()
export class RemoteBuildNodesService {
  constructor(
    @InjectRepository(RemoteBuildNode) private readonly nodes: Repository<RemoteBuildNode>,
    private readonly probe: NodeProbe,
  ) {}

  list(): Promise<RemoteBuildNode[]> {
    return this.nodes.find({ order: { created: 'ASC', xname: 'ASC' } });
  }

  async get(xname: string): Promise<RemoteBuildNode> {
    const node = await this.nodes.findOneBy({ xname });
    if (!node) throw problems.noSuchRecord('remote build node', xname.slice(0, 64));
    return node;
  }

  /** Registers a node; one that is known already stays as it is. */
  async create({ xname }: CreateRemoteBuildNode): Promise<RemoteBuildNode> {
    await this.nodes.createQueryBuilder().insert().values({ xname }).orIgnore().execute();
    return this.get(xname);
  }

  /** Asks all nodes at once. */
  async statuses(): Promise<RemoteBuildNodeStatus[]> {
    const nodes = await this.list();
    return Promise.all(nodes.map(({ xname }) => this.probe.ask(xname)));
  }

  async status(xname: string): Promise<RemoteBuildNodeStatus> {
    return this.probe.ask((await this.get(xname)).xname);
  }

  async delete(xname: string): Promise<void> {
    const { affected } = await this.nodes.delete({ xname });
    if (!affected) throw problems.noSuchRecord('remote build node', xname.slice(0, 64));
  }

  async deleteAll(): Promise<void> {
    await this.nodes.createQueryBuilder().delete().execute();
  }
}
