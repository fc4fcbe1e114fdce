import { problems } from '../errors/problems.js';
import { readCursor } from './cursor.js';
import type { ListQuery } from './list-query.dto.js';

/** Characters of a name that its index holds: a name may be longer than a row of an index. */
const INDEXED_NAME = 128;

/** The conditions of a query on a table `t`, with the values of their parameters. */
export class Where {
  readonly values: unknown[] = [];
  private readonly conditions: string[];

  constructor(...conditions: string[]) {
    this.conditions = conditions;
  }

  /** Adds a condition; `place` puts a value in and gives the parameter that stands for it. */
  and(condition: (place: (value: unknown) => string) => string): this {
    this.conditions.push(condition((value) => `$${this.values.push(value)}`));
    return this;
  }

  get sql(): string {
    return this.conditions.join(' AND ');
  }
}

/** How lists call the name of a record of this table. */
export interface Naming {
  /** Column of the name. */
  name?: string;
}

/**
 * Adds what a list query asks for.
 * @throws Problem (400) where `after` is not what we gave out
 */
export function addFilters(where: Where, query: ListQuery & { arch?: string }, { name = 'name' }: Naming = {}): Where {
  const { arch, created_before, created_after } = query;
  if (query.name !== undefined) addName(where, name, query.name);
  if (query.name_prefix !== undefined) addNamePrefix(where, name, query.name_prefix);
  if (arch) where.and((place) => `t."arch" = ${place(arch)}`);
  if (created_before) where.and((place) => `t."created" < ${place(created_before)}::timestamptz`);
  if (created_after) where.and((place) => `t."created" > ${place(created_after)}::timestamptz`);
  if (query.after !== undefined) addAfter(where, query.after);
  return where;
}

/** As much of a name as its index holds. PostgreSQL counts code points. */
function beginningOf(name: string): string {
  return Array.from(name).slice(0, INDEXED_NAME).join('');
}

function addName(where: Where, column: string, name: string): void {
  const indexed = beginningOf(name);
  where.and((place) => `left(t."${column}", ${INDEXED_NAME}) = ${place(indexed)} AND t."${column}" = ${place(name)}`);
}

function addNamePrefix(where: Where, column: string, prefix: string): void {
  const indexed = beginningOf(prefix);
  const pattern = `${indexed.replace(/[\\%_]/g, '\\$&')}%`;
  where.and(
    (place) =>
      `left(t."${column}", ${INDEXED_NAME}) LIKE ${place(pattern)} AND starts_with(t."${column}", ${place(prefix)})`,
  );
}

function addAfter(where: Where, after: string): void {
  const cursor = readCursor(after);
  if (!cursor) throw problems.badQuery('after must be what the Link header of the page before gives');
  where.and(
    (place) => `(t."created", t."id") > (${place(`${cursor.created}Z`)}::timestamptz, ${place(cursor.id)}::uuid)`,
  );
}
