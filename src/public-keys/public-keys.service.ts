import { randomUUID } from 'node:crypto';
import { Injectable } from '@nestjs/common';
import { InjectRepository } from '@nestjs/typeorm';
import { Repository } from 'typeorm';
import { problems } from '../errors/problems.js';
import { PublicKey } from './public-key.entity.js';
import type { CreatePublicKey } from './public-keys.dto.js';

@Injectable()
export class PublicKeysService {
  constructor(@InjectRepository(PublicKey) private readonly keys: Repository<PublicKey>) {}

  list(): Promise<PublicKey[]> {
    return this.keys.find({ order: { created: 'ASC', id: 'ASC' } });
  }

  async get(id: string): Promise<PublicKey> {
    const key = await this.find(id);
    if (!key) throw problems.noSuchRecord('public key', id);
    return key;
  }

  find(id: string): Promise<PublicKey | null> {
    return this.keys.findOneBy({ id });
  }

  async create(body: CreatePublicKey): Promise<PublicKey> {
    const key = this.keys.create({
      id: randomUUID(),
      created: new Date(),
      name: body.name,
      public_key: body.public_key,
      deleted: null,
    });
    await this.keys.insert(key);
    return key;
  }

  /** Hides the record; it can be brought back. Jobs keep the key that they were started with. */
  async markDeleted(id: string): Promise<void> {
    const { affected } = await this.keys.softDelete({ id });
    if (!affected) throw problems.noSuchRecord('public key', id);
  }

  async markAllDeleted(): Promise<void> {
    await this.keys.createQueryBuilder().softDelete().where('deleted IS NULL').execute();
  }

  /** Removes the record for good. */
  async purge(id: string): Promise<void> {
    await this.get(id);
    await this.keys.delete({ id });
  }

  async purgeAll(): Promise<void> {
    await this.keys.createQueryBuilder().delete().where('deleted IS NULL').execute();
  }
}
