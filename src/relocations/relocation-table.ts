import { type DataSource, type EntityManager } from 'typeorm';
import { RecordArtifact } from './record-artifact.entity.js';
import type { LinkedKind, Relocation, Wanted } from './relocation.entity.js';

/** Seconds for which a server works alone on what it claimed, without saying so again. */
export const LEASE_SECONDS = 30;
/** Longest time between two tries, seconds. */
const LONGEST_PAUSE = 300;

/** Numbers that no other program on the same database uses for its advisory locks. */
const CLAIM_LOCK = 0x494d5302;
const LINK_LOCK = 0x494d5303;

/** A relocation that this server works on. */
export type Claim = Pick<Relocation, 'record_id' | 'kind' | 'wanted' | 'link' | 'planned' | 'attempts' | 'fence'>;

/** Records of every kind that are not deleted. */
const LIVE = `(SELECT id FROM images WHERE deleted IS NULL UNION ALL SELECT id FROM recipes WHERE deleted IS NULL)`;

/** Whether another server works on an artifact of the record $1: two may not move one artifact at once. */
const CONTENDED = (record: string) => `EXISTS (
  SELECT 1 FROM relocations o JOIN record_artifacts theirs ON theirs.record_id = o.record_id
  JOIN record_artifacts ours ON ours.at = theirs.at OR ours.home = theirs.home
  WHERE o.lease_until >= now() AND o.record_id <> ${record} AND ours.record_id = ${record})`;

/** Whether a job that has not ended starts from an artifact of the record: deleting a record disturbs no job. */
const HELD_BY_JOB = `EXISTS (
  SELECT 1 FROM jobs j JOIN record_artifacts a
  ON a.at = concat('s3://', j.source #>> '{artifact,bucket}', '/', j.source #>> '{artifact,key}')
  WHERE j.ended IS NULL AND j.deleted IS NULL AND a.record_id = r.record_id)`;

/** The statements on relocations and the artifacts of records. */
export class RelocationTable {
  constructor(
    private readonly database: DataSource,
    /** This server among all on the database. */
    private readonly holder: string,
  ) {}

  /** Gives up what an earlier life of this server was working on: it was killed. */
  async dropOwnLeases(): Promise<void> {
    await this.database.query(`UPDATE relocations SET lease_until = NULL WHERE holder = $1`, [this.holder]);
  }

  /** Takes the relocation that waits for longest, if there is one that can be worked on. */
  async claim(): Promise<Claim | null> {
    return this.database.transaction(async (manager) => {
      // Claims take turns: two at once would not see that they are about the same artifact.
      await manager.query('SELECT pg_advisory_xact_lock($1)', [CLAIM_LOCK]);
      const rows: Claim[] = await manager.query(
        `WITH claimed AS (
          UPDATE relocations SET lease_until = now() + make_interval(secs => $1), holder = $2, fence = fence + 1,
            attempts = attempts + 1
          WHERE record_id = (
            SELECT r.record_id FROM relocations r
            WHERE r.not_before <= now() AND (r.lease_until IS NULL OR r.lease_until < now())
              AND NOT ${CONTENDED('r.record_id')} AND (r.wanted = 'live' OR NOT ${HELD_BY_JOB})
            ORDER BY r.not_before LIMIT 1 FOR UPDATE SKIP LOCKED)
          RETURNING *)
        SELECT record_id, kind, wanted, link, planned, attempts, fence FROM claimed`,
        [LEASE_SECONDS, this.holder],
      );
      return rows[0] ?? null;
    });
  }

  /** Whether another server works on an artifact of the record since its artifacts were read anew. */
  async isContended({ record_id }: Claim): Promise<boolean> {
    const [row] = await this.database.query(`SELECT ${CONTENDED('$1::uuid')} AS contended`, [record_id]);
    return (row as { contended: boolean }).contended;
  }

  /** Extends the lease. Tells what is wanted by now; null where the lease is lost. */
  async extend({ record_id, fence }: Claim): Promise<Wanted | null> {
    const rows: { wanted: Wanted }[] = await this.database.query(
      `WITH extended AS (
        UPDATE relocations SET lease_until = now() + make_interval(secs => $3) WHERE record_id = $1 AND fence = $2 RETURNING wanted)
      SELECT wanted FROM extended`,
      [record_id, fence, LEASE_SECONDS],
    );
    return rows[0]?.wanted ?? null;
  }

  /** Gives the lease back, for another try after a pause. */
  async giveBack({ record_id, fence }: Claim, pauseSeconds: number, reason: string | null): Promise<void> {
    await this.database.query(
      `UPDATE relocations SET lease_until = NULL, reason = $4,
        not_before = greatest(not_before, now() + make_interval(secs => $3)) WHERE record_id = $1 AND fence = $2`,
      [record_id, fence, pauseSeconds, reason],
    );
  }

  /** Seconds until the next try of one that failed. */
  static pauseAfter({ attempts }: Claim): number {
    return Math.min(2 ** attempts, LONGEST_PAUSE);
  }

  /** Ends a relocation together with what it changes of its record; false where something else is wanted by now. */
  async finish(claim: Claim, change: (manager: EntityManager) => Promise<unknown>): Promise<boolean> {
    return this.database.transaction(async (manager) => {
      // Requests lock the record first, then the relocation.
      await change(manager);
      const rows: unknown[] = await manager.query(
        `WITH ended AS (DELETE FROM relocations WHERE record_id = $1 AND fence = $2 AND wanted = $3 RETURNING record_id)
        SELECT record_id FROM ended`,
        [claim.record_id, claim.fence, claim.wanted],
      );
      if (!rows.length) throw new Superseded();
      return true;
    });
  }

  /** The artifacts of a record, in the order of its manifest. */
  artifactsOf(recordId: string, manager: EntityManager = this.database.manager): Promise<RecordArtifact[]> {
    return manager.find(RecordArtifact, { where: { record_id: recordId }, order: { position: 'ASC' } });
  }

  /** Writes down what was read for a relocation. */
  async plan(claim: Claim, artifacts: RecordArtifact[]): Promise<void> {
    await this.database.transaction(async (manager) => {
      await manager.delete(RecordArtifact, { record_id: claim.record_id });
      if (artifacts.length) await manager.insert(RecordArtifact, artifacts);
      await manager.query(`UPDATE relocations SET planned = true WHERE record_id = $1 AND fence = $2`, [
        claim.record_id,
        claim.fence,
      ]);
    });
  }

  /** An artifact is somewhere else now, for all records that lead to it. */
  async moved(from: string, to: string, etag: string): Promise<void> {
    await this.database.query(`UPDATE record_artifacts SET at = $2, etag = $3 WHERE at = $1`, [from, to, etag]);
  }

  /** No record leads to an artifact any more, since it is not there. */
  async forgetArtifact(at: string): Promise<void> {
    await this.database.query(`DELETE FROM record_artifacts WHERE at = $1`, [at]);
  }

  /** A record leads to none of its artifacts any more. */
  async forgetRecord(recordId: string, manager: EntityManager = this.database.manager): Promise<void> {
    await manager.delete(RecordArtifact, { record_id: recordId });
  }

  /** Whether a live record beside this one leads to an artifact. Waits for those that are about to. */
  async isUsedByLive(at: string, recordId: string): Promise<boolean> {
    return this.database.transaction(async (manager) => {
      await manager.query('SELECT pg_advisory_xact_lock($1)', [LINK_LOCK]);
      return this.exists(
        manager,
        `SELECT 1 FROM record_artifacts a JOIN ${LIVE} live ON live.id = a.record_id WHERE a.at = $1 AND a.record_id <> $2`,
        [at, recordId],
      );
    });
  }

  /** Whether any other record, live or deleted, leads to an artifact. Waits for those that are about to. */
  async isUsed(at: string, recordId: string): Promise<boolean> {
    return this.database.transaction(async (manager) => {
      await manager.query('SELECT pg_advisory_xact_lock($1)', [LINK_LOCK]);
      return this.exists(manager, `SELECT 1 FROM record_artifacts a WHERE a.at = $1 AND a.record_id <> $2`, [
        at,
        recordId,
      ]);
    });
  }

  /** Whether an artifact of any record is, or is to be, at a place. */
  isTaken(path: string): Promise<boolean> {
    return this.exists(this.database.manager, `SELECT 1 FROM record_artifacts WHERE at = $1`, [path]);
  }

  /** The first of some artifacts that is about to be moved away or removed; null where none is. Held until the transaction ends. */
  async findLeaving(manager: EntityManager, paths: readonly string[]): Promise<string | null> {
    await manager.query('SELECT pg_advisory_xact_lock_shared($1)', [LINK_LOCK]);
    const rows: { at: string }[] = await manager.query(
      `SELECT a.at FROM record_artifacts a JOIN relocations r USING (record_id) WHERE a.at = ANY($1) AND r.wanted <> 'live' LIMIT 1`,
      [paths],
    );
    return rows[0]?.at ?? null;
  }

  /** Asks for a relocation of records that still have a row, or turns one that runs. */
  async request(manager: EntityManager, kind: LinkedKind, table: string, wanted: Wanted, ids: string[]): Promise<void> {
    await manager.query(
      `INSERT INTO relocations (record_id, kind, wanted, link, planned, not_before)
       SELECT t.id, $1, $2, coalesce(t.home_link, t.link), t.home_link IS NOT NULL, now() FROM "${table}" t
       WHERE t.id = ANY($3) AND t.link IS NOT NULL
       ON CONFLICT (record_id) DO UPDATE SET wanted = excluded.wanted, attempts = 0, not_before = now(), reason = NULL`,
      [kind, wanted, ids],
    );
  }

  /** Which of these relocations still have something to do now. */
  async pending(ids: readonly string[]): Promise<number> {
    const [row] = await this.database.query(
      `SELECT count(*)::int AS pending FROM relocations WHERE record_id = ANY($1) AND not_before <= now()`,
      [ids],
    );
    return (row as { pending: number }).pending;
  }

  private async exists(manager: EntityManager, sql: string, parameters: unknown[]): Promise<boolean> {
    const [row] = await manager.query(`SELECT EXISTS (${sql}) AS found`, parameters);
    return (row as { found: boolean }).found;
  }
}

/** Something else is wanted by now, or the lease is lost. */
export class Superseded extends Error {}
