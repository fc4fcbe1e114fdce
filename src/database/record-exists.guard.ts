import { type CanActivate, type ExecutionContext, Inject, type Type, UseGuards } from '@nestjs/common';
import type { FastifyRequest } from 'fastify';
import { IdPipe } from '../errors/id.pipe.js';
import type { State } from './record-store.js';

/** What knows whether a record is there. */
export interface KnowsRecords {
  /** @throws Problem (404) */
  refuseMissing(id: string, state?: State): Promise<void>;
}

/** Ends a request for a record that is not there before its body is looked at. */
export function OnlyExisting(service: Type<KnowsRecords>, state: State = 'live'): MethodDecorator {
  class RecordExists implements CanActivate {
    private readonly idPipe = new IdPipe();

    constructor(@Inject(service) private readonly records: KnowsRecords) {}

    async canActivate(context: ExecutionContext): Promise<boolean> {
      const { id } = context.switchToHttp().getRequest<FastifyRequest<{ Params: { id: string } }>>().params;
      await this.records.refuseMissing(this.idPipe.transform(id), state);
      return true;
    }
  }
  return UseGuards(RecordExists);
}
