import { createParamDecorator, type ExecutionContext } from '@nestjs/common';
import type { FastifyRequest } from 'fastify';
import type { EntityMetadata } from 'typeorm';
import { type Told, toldOf } from './wire.js';

/** JSON that the database made; it is sent as it is. */
export class Json {
  constructor(
    readonly text: string,
    /** For a page of a list: what `after` has to be for the next one; null where this is the last. */
    readonly next: string | null = null,
  ) {}
}

/** A page of a list of entities. */
export class Page<T> {
  constructor(
    readonly items: readonly T[],
    /** As in `Json`. */
    readonly next: string | null,
  ) {}
}

/** What a request would have done, had it not asked to do nothing. */
export class WouldBe {
  constructor(readonly answer: object) {}
}

/** Which members an answer has: those that clients of the original know, or ours too. */
export type Members = 'original' | 'all';

/** Whether a request is for version 3. */
export function isVersion3({ url }: Pick<FastifyRequest, 'url'>): boolean {
  return url.startsWith('/v3/');
}

/** Which members the asked version tells of. */
export const AskedMembers = createParamDecorator((_data: unknown, context: ExecutionContext): Members =>
  isVersion3(context.switchToHttp().getRequest<FastifyRequest>()) ? 'all' : 'original',
);

/** Format of PostgreSQL for `2018-11-21T17:19:07.830000+00:00`; a Date of JavaScript would lose the microseconds. */
const WIRE_TIME = `YYYY-MM-DD"T"HH24:MI:SS.US"+00:00"`;

/** The select list that makes one record, as the API tells it, of a row of the table `t`. */
export function wireColumns(metadata: EntityMetadata, members: Members, deleted: boolean): string {
  const isTold: Record<Told, boolean> = { always: true, v3: members === 'all', deleted, never: false };
  return metadata.columns
    .filter(({ propertyName }) => isTold[toldOf(metadata.target as { prototype: object }, propertyName)])
    .map(({ databaseName: name, type }) =>
      type === 'timestamptz' ? `to_char(t."${name}" AT TIME ZONE 'UTC', '${WIRE_TIME}') AS "${name}"` : `t."${name}"`,
    )
    .join(', ');
}
