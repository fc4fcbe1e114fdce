import type { Pool } from 'pg';
import { type EntityManager, type FindOptionsWhere, type ObjectLiteral, type Repository } from 'typeorm';
import { problems, type RecordKind } from '../errors/problems.js';
import { CURSOR_TIME, writeCursor } from './cursor.js';
import type { NewRecord } from '../idempotency/new-record.js';
import { Json, type Members, wireColumns, WouldBe } from './json.js';
import type { ListQuery } from './list-query.dto.js';
import { addFilters, Where } from './where.js';

/** What every record has. */
export interface StoredRecord {
  id: string;
  created: Date;
  deleted: Date | null;
}

/** Whether records are wanted that are there, or those that were deleted and can be brought back. */
export type State = 'live' | 'deleted';

const CONDITION: Record<State, string> = { live: 't."deleted" IS NULL', deleted: 't."deleted" IS NOT NULL' };

/** Whether a write failed since it would have broken this constraint or unique index. TypeORM's error has the members of the driver's. */
export function violates(error: unknown, constraint: string): boolean {
  return (error as { constraint?: string }).constraint === constraint;
}

/** Records of one kind: what all kinds have in common. Deleted is a state of a row; to purge is to remove the row. */
export class RecordStore<T extends StoredRecord> {
  private readonly columns = new Map<string, string>();

  constructor(
    readonly repository: Repository<T>,
    readonly kind: RecordKind,
  ) {}

  /**
   * All records, oldest first, as one JSON text that PostgreSQL makes: a list of ten thousand never becomes objects here. A query makes
   * them fewer; with a limit they come a page at a time.
   */
  async list(members: Members, state: State = 'live', query: ListQuery = {}, where = new Where()): Promise<Json> {
    addFilters(
      where.and(() => CONDITION[state]),
      query,
    );
    const columns = this.told(members, state);
    if (query.limit) return this.page(columns, where, query.limit);
    const [row] = await this.select<{ json: string }>(
      `SELECT coalesce(json_agg(r), '[]')::text AS json FROM
        (SELECT ${columns} FROM ${this.table} t WHERE ${where.sql} ORDER BY t."created", t."id") r`,
      where.values,
    );
    return new Json(row!.json);
  }

  private async page(columns: string, where: Where, limit: number): Promise<Json> {
    const told = `SELECT row_to_json(r) FROM (SELECT ${columns}) r`;
    const { texts, next } = await selectPage(this.repository, told, where, limit);
    return new Json(`[${texts.join(',')}]`, next);
  }

  /** What a request that deletes would delete: one record, or all of a state. */
  async wouldDelete(members: Members, state: State, id?: string): Promise<WouldBe> {
    return new WouldBe(id ? await this.get(id, members, state) : await this.list(members, state));
  }

  /**
   * One record.
   * @throws Problem (404)
   */
  async get(id: string, members: Members, state: State = 'live'): Promise<Json> {
    const [row] = await this.select<{ json: string }>(
      `SELECT row_to_json(r)::text AS json FROM (${this.records(members, state)} AND t."id" = $1) r`,
      [id],
    );
    if (!row) throw problems.noSuchRecord(this.kind, id);
    return new Json(row.json);
  }

  /** The record that a request is to make, where it was made already. */
  async findRepeated({ id, isRepeat }: NewRecord, members: Members): Promise<Json | null> {
    if (!isRepeat || !(await this.repository.existsBy({ id } as FindOptionsWhere<T>))) return null;
    return this.get(id, members);
  }

  /** @throws Problem (404) where there is no such record in this state */
  async refuseMissing(id: string, state: State = 'live'): Promise<void> {
    const [row] = await this.select(`SELECT 1 FROM ${this.table} t WHERE t."id" = $1 AND ${CONDITION[state]}`, [id]);
    if (!row) throw problems.noSuchRecord(this.kind, id);
  }

  /**
   * The row itself, locked until the transaction ends.
   * @throws Problem (404)
   */
  async lock(manager: EntityManager, id: string, state: State = 'live'): Promise<T> {
    const row = await manager
      .createQueryBuilder(this.repository.target, 't')
      .setLock('pessimistic_write')
      .withDeleted()
      .where(`t.id = :id AND ${CONDITION[state]}`, { id })
      .getOne();
    if (!row) throw problems.noSuchRecord(this.kind, id);
    return row as T;
  }

  /** Inserts a record; the database gives it its time. */
  async add(values: Partial<T>, members: Members, manager?: EntityManager): Promise<Json> {
    const columns = this.columnsOf(values);
    const sql = `INSERT INTO ${this.table} (${columns.map(({ name }) => `"${name}"`).join(', ')}, "created")
      VALUES (${columns.map((_, index) => `$${index + 1}`).join(', ')}, clock_timestamp())`;
    return (await this.write(sql, columns, members, manager))!;
  }

  /**
   * Changes some columns of a live record.
   * @throws Problem (404)
   */
  async update(id: string, values: Partial<T>, members: Members, manager: EntityManager): Promise<Json> {
    const columns = [...this.columnsOf(values), { name: 'id', value: id }];
    const changes = columns.slice(0, -1).map(({ name }, index) => `"${name}" = $${index + 1}`);
    const condition = `t."id" = $${columns.length} AND ${CONDITION.live}`;
    const sql = `UPDATE ${this.table} t SET ${changes.join(', ')} WHERE ${condition}`;
    const json = await this.write(sql, columns, members, manager);
    if (!json) throw problems.noSuchRecord(this.kind, id);
    return json;
  }

  /** Hides records that can be brought back: one, or all. Returns the ids of those that were hidden. */
  async markDeleted(id?: string, manager: EntityManager = this.repository.manager): Promise<string[]> {
    return this.change(manager, 'UPDATE', 'SET "deleted" = clock_timestamp()', 'live', id);
  }

  /** Brings hidden records back: one, or all. */
  async undelete(id?: string, manager: EntityManager = this.repository.manager): Promise<string[]> {
    return this.change(manager, 'UPDATE', 'SET "deleted" = NULL', 'deleted', id);
  }

  /** Removes records of this state for good: one, or all. */
  async purge(state: State, id?: string, manager: EntityManager = this.repository.manager): Promise<string[]> {
    return this.change(manager, 'DELETE FROM', '', state, id);
  }

  /** Ids of all records of a state, oldest first. */
  async ids(state: State): Promise<string[]> {
    const rows = await this.select<{ id: string }>(
      `SELECT t."id" FROM ${this.table} t WHERE ${CONDITION[state]} ORDER BY t."created", t."id"`,
      [],
    );
    return rows.map((row) => row.id);
  }

  /**
   * Changes rows of a state and returns their ids.
   * @throws Problem (404) where one was named and is not there
   */
  private async change(
    manager: EntityManager,
    verb: 'UPDATE' | 'DELETE FROM',
    change: string,
    state: State,
    id?: string,
  ): Promise<string[]> {
    const sql = `WITH changed AS (${verb} ${this.table} AS t ${change} WHERE ${CONDITION[state]} ${id ? 'AND t."id" = $1' : ''} RETURNING t."id") SELECT "id" FROM changed`;
    const rows: { id: string }[] = await manager.query(sql, id ? [id] : []);
    if (id && !rows.length) throw problems.noSuchRecord(this.kind, id);
    return rows.map((row) => row.id);
  }

  /** Runs a statement that writes one row, and tells of the row in the same round trip; null where no row was written. */
  private async write(sql: string, columns: Column[], members: Members, manager?: EntityManager): Promise<Json | null> {
    const told = this.told(members, 'live');
    const statement = `WITH written AS (${sql} RETURNING *) SELECT row_to_json(r)::text AS json FROM (SELECT ${told} FROM written t) r`;
    const values = columns.map(({ value }) => value);
    const rows: { json: string }[] = manager
      ? await manager.query(statement, values)
      : await this.select<{ json: string }>(statement, values);
    return rows[0] ? new Json(rows[0].json) : null;
  }

  private columnsOf(values: Partial<T>): Column[] {
    return this.repository.metadata.columns
      .filter(({ propertyName }) => propertyName in values)
      .map(({ propertyName, databaseName, type }) => {
        const value = values[propertyName as keyof T];
        // The driver would make an array of PostgreSQL of an array of JavaScript.
        const isJson = type === 'jsonb' && value !== null;
        return { name: databaseName, value: isJson ? JSON.stringify(value) : value };
      });
  }

  private get table(): string {
    return `"${this.repository.metadata.tableName}"`;
  }

  private records(members: Members, state: State): string {
    return `SELECT ${this.told(members, state)} FROM ${this.table} t WHERE ${CONDITION[state]}`;
  }

  /** The select list of what answers tell, made once. */
  private told(members: Members, state: State): string {
    const known = this.columns.get(`${members} ${state}`);
    if (known) return known;
    const columns = wireColumns(this.repository.metadata, members, state === 'deleted');
    this.columns.set(`${members} ${state}`, columns);
    return columns;
  }

  /** Straight from the pool: TypeORM's query runner takes as long as such a query does, and has nothing to add to it. */
  private async select<Row extends object>(sql: string, parameters: unknown[]): Promise<Row[]> {
    const { rows } = await poolOf(this.repository).query<Row>(sql, parameters);
    return rows;
  }
}

function poolOf({ manager }: { manager: EntityManager }): Pool {
  return (manager.connection.driver as unknown as { master: Pool }).master;
}

/** A row of a page: what was asked for, as `told`, and the place of the row in the list. */
interface PageRow {
  told: string;
  at_created: string;
  at_id: string;
}

/** One text for each record of a page, oldest first (of all without a limit), and what `after` has to be for the next page. */
export async function selectPage(
  { metadata, manager }: Pick<Repository<ObjectLiteral>, 'metadata' | 'manager'>,
  told: string,
  where: Where,
  limit?: number,
): Promise<{ texts: string[]; next: string | null }> {
  const found: PageRow[] = await manager.query(
    `SELECT (${told})::text AS told, to_char(t."created" AT TIME ZONE 'UTC', '${CURSOR_TIME}') AS at_created, t."id" AS at_id
     FROM "${metadata.tableName}" t WHERE ${where.sql} ORDER BY t."created", t."id" ${limit ? `LIMIT ${limit + 1}` : ''}`,
    where.values,
  );
  const rows = found.slice(0, limit);
  const last = found.length > rows.length ? rows.at(-1) : undefined;
  return {
    texts: rows.map((row) => row.told),
    next: last ? writeCursor({ created: last.at_created, id: last.at_id }) : null,
  };
}

/** A column of a row that is written, and its value as the driver takes it. */
interface Column {
  name: string;
  value: unknown;
}
