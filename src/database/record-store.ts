import { type EntityManager, QueryFailedError, type QueryDeepPartialEntity, type Repository } from 'typeorm';
import { problems, type RecordKind } from '../errors/problems.js';
import { Json, type Members, wireColumns } from './json.js';

/** What every record has. */
export interface StoredRecord {
  id: string;
  created: Date;
  deleted: Date | null;
}

/** Whether records are wanted that are there, or those that were deleted and can be brought back. */
export type State = 'live' | 'deleted';

const CONDITION: Record<State, string> = { live: 't."deleted" IS NULL', deleted: 't."deleted" IS NOT NULL' };

/** Whether a write failed since it would have broken this constraint or unique index. */
export function violates(error: unknown, constraint: string): boolean {
  return error instanceof QueryFailedError && (error.driverError as { constraint?: string }).constraint === constraint;
}

/** Records of one kind: what all kinds have in common. Deleted is a state of a row; to purge is to remove the row. */
export class RecordStore<T extends StoredRecord> {
  constructor(
    readonly repository: Repository<T>,
    private readonly kind: RecordKind,
  ) {}

  /** All records, oldest first, as one JSON text that PostgreSQL makes: a list of ten thousand never becomes objects here. */
  async list(members: Members, state: State = 'live'): Promise<Json> {
    const [row] = await this.select<{ json: string }>(
      `SELECT coalesce(json_agg(r), '[]')::text AS json FROM (${this.records(members, state)} ORDER BY t."created", t."id") r`,
      [],
    );
    return new Json(row!.json);
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
  async add(values: QueryDeepPartialEntity<T>, manager: EntityManager = this.repository.manager): Promise<void> {
    await manager
      .createQueryBuilder()
      .insert()
      .into(this.repository.target)
      .values(values)
      .updateEntity(false)
      .execute();
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

  private get table(): string {
    return `"${this.repository.metadata.tableName}"`;
  }

  private records(members: Members, state: State): string {
    const columns = wireColumns(this.repository.metadata, members, state === 'deleted');
    return `SELECT ${columns} FROM ${this.table} t WHERE ${CONDITION[state]}`;
  }

  private select<Row>(sql: string, parameters: unknown[]): Promise<Row[]> {
    return this.repository.query(sql, parameters);
  }
}
