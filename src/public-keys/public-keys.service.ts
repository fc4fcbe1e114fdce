import { randomUUID } from 'node:crypto';
import { Injectable } from '@nestjs/common';
import { InjectRepository } from '@nestjs/typeorm';
import { Repository } from 'typeorm';
import type { Json, Members } from '../database/json.js';
import type { KnowsRecords } from '../database/record-exists.guard.js';
import { RecordStore, type State } from '../database/record-store.js';
import { PublicKey } from './public-key.entity.js';
import type { CreatePublicKey } from './public-keys.dto.js';

@Injectable()
export class PublicKeysService implements KnowsRecords {
  private readonly records: RecordStore<PublicKey>;

  constructor(@InjectRepository(PublicKey) private readonly keys: Repository<PublicKey>) {
    this.records = new RecordStore(keys, 'public key');
  }

  list(members: Members, state?: State): Promise<Json> {
    return this.records.list(members, state);
  }

  get(id: string, members: Members, state?: State): Promise<Json> {
    return this.records.get(id, members, state);
  }

  refuseMissing(id: string, state?: State): Promise<void> {
    return this.records.refuseMissing(id, state);
  }

  /** The live record, for those who need the key itself. */
  find(id: string): Promise<PublicKey | null> {
    return this.keys.findOneBy({ id });
  }

  create({ name, public_key }: CreatePublicKey, members: Members): Promise<Json> {
    return this.records.add({ id: randomUUID(), name, public_key }, members);
  }

  /** Hides the record, or all; they can be brought back. Jobs keep the key that they were started with. */
  async markDeleted(id?: string): Promise<void> {
    await this.records.markDeleted(id);
  }

  /** Brings a deleted record back, or all. */
  async undelete(id?: string): Promise<void> {
    await this.records.undelete(id);
  }

  /** Removes the record for good, or all of a state. */
  async purge(state: State, id?: string): Promise<void> {
    await this.records.purge(state, id);
  }
}
