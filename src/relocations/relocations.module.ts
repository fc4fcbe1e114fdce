import { type DynamicModule, Module } from '@nestjs/common';
import { LinkedRecords } from './linked-records.js';
import { RelocationWorker, SERVER_ID } from './relocation-worker.js';

/** Moves the artifacts of deleted, undeleted and purged records. */
@Module({})
export class RelocationsModule {
  /** @param serverId names this server among all on a database; the same after a restart */
  static with(serverId: string): DynamicModule {
    return {
      module: RelocationsModule,
      global: true,
      providers: [{ provide: SERVER_ID, useValue: serverId }, RelocationWorker, LinkedRecords],
      exports: [LinkedRecords],
    };
  }
}
