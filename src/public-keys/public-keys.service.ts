import { Injectable } from '@nestjs/common';
import { InjectRepository } from '@nestjs/typeorm';
import { Repository } from 'typeorm';
import type { DryRun } from '../database/dry-run.dto.js';
import type { Json, Members, WouldBe } from '../database/json.js';
import type { ListQuery } from '../database/list-query.dto.js';
import type { KnowsRecords } from '../database/record-exists.guard.js';
import { RecordStore, type State } from '../database/record-store.js';
import type { NewRecord } from '../idempotency/new-record.js';
import { PublicKey } from './public-key.entity.js';
import type { CreatePublicKey } from './public-keys.dto.js';

@Injectable()
export class PublicKeysService implements KnowsRecords {
  private readonly records: RecordStore<PublicKey>;

  constructor(@InjectRepository(PublicKey) private readonly keys: Repository<PublicKey>) {
    this.records = new RecordStore(keys, 'public key');
  }

  list(members: Members, state?: State, query?: ListQuery): Promise<Json> {
    return this.records.list(members, state, query);
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

  async create({ name, public_key }: CreatePublicKey, members: Members, record: NewRecord): Promise<Json> {
    const repeated = await this.records.findRepeated(record, members);
    return repeated ?? this.records.add({ id: record.id, name, public_key }, members);
  }

  /** Hides the record, or all; they can be brought back. Jobs keep the key that they were started with. */
  async markDeleted({ dry_run }: DryRun, id?: string): Promise<WouldBe | undefined> {
    if (dry_run) return this.records.wouldDelete('all', 'live', id);
    await this.records.markDeleted(id);
    return undefined;
  }

  /** Brings a deleted record back, or all. */
  async undelete(id?: string): Promise<void> {
    await this.records.undelete(id);
  }

  /** Removes the record for good, or all of a state. */
  async purge({ dry_run }: DryRun, state: State, id?: string): Promise<WouldBe | undefined> {
    if (dry_run) return this.records.wouldDelete(state === 'live' ? 'original' : 'all', state, id);
    await this.records.purge(state, id);
    return undefined;
  }
}
