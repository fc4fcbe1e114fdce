import { randomUUID } from 'node:crypto';
import { createParamDecorator, type ExecutionContext } from '@nestjs/common';
import type { FastifyRequest } from 'fastify';

/** The record that a request is to make. */
export interface NewRecord {
  id: string;
  /** Whether a server that is gone by now may have made it already, for the same request. */
  isRepeat: boolean;
}

const planned = new WeakMap<FastifyRequest, NewRecord>();

/** Says which record a request makes. */
export function planRecord(request: FastifyRequest, record: NewRecord): void {
  planned.set(request, record);
}

/** The record that the request makes: that of its key, or any new one. */
export const PlannedRecord = createParamDecorator(
  (_data: unknown, context: ExecutionContext): NewRecord =>
    planned.get(context.switchToHttp().getRequest<FastifyRequest>()) ?? { id: randomUUID(), isRepeat: false },
);
