import { setTimeout as sleep } from 'node:timers/promises';
import { Injectable } from '@nestjs/common';
import { InjectDataSource } from '@nestjs/typeorm';
import { Inject } from '@nestjs/common';
import { DataSource, type EntityManager } from 'typeorm';
import { ArtifactStore, NoSuchArtifact } from '../artifacts/artifact-store.js';
import { type RecordStore, type State, type StoredRecord, violates } from '../database/record-store.js';
import { Problem, problems } from '../errors/problems.js';
import { type ArtifactLink, findLocation } from '../protocol/artifact-link.js';
import { homePath, isAway } from './away-path.js';
import { RecordArtifact } from './record-artifact.entity.js';
import type { FoundArtifact, Relocatable } from './relocatable.js';
import { Relocation } from './relocation.entity.js';
import { RelocationTable } from './relocation-table.js';
import { addArtifacts, RelocationWorker, SERVER_ID } from './relocation-worker.js';

/** A record that leads to artifacts. */
export interface LinkedRecord extends StoredRecord {
  /** Where the artifacts are now. */
  link: ArtifactLink | null;
  /** Where the link leads when all artifacts are at home; null where that is what `link` says. */
  home_link: ArtifactLink | null;
  /** Whether it is written down which artifacts the record leads to. That of imported records is not. */
  artifacts_known: boolean;
}

/**
 * Milliseconds that an answer waits for the artifacts to arrive. Small ones have then arrived, as clients of the original expect; large ones
 * go on arriving after the answer.
 */
const PATIENCE = 1000;
/** Milliseconds between two looks at whether they have. */
const GLANCE = 25;

/**
 * The link of a record after a client gives one. The same link again is fine, so that a client may repeat a request; another one is not.
 * @throws Problem (409)
 */
export function linkAfter(
  { link, home_link }: LinkedRecord,
  given: ArtifactLink | undefined,
): { link: ArtifactLink | null; isNew: boolean } {
  if (!given) return { link, isNew: false };
  if (!link) return { link: { ...given }, isNew: true };
  const home = home_link ?? link;
  const isSame = home.path === given.path && (!given.etag || home.etag === given.etag);
  if (!isSame) throw problems.linkConflict();
  return { link, isNew: false };
}

/** Deletes, undeletes and purges records that lead to artifacts: the record at once, the artifacts by the worker. */
@Injectable()
export class LinkedRecords {
  private readonly table: RelocationTable;

  constructor(
    @InjectDataSource() private readonly database: DataSource,
    private readonly store: ArtifactStore,
    private readonly worker: RelocationWorker,
    @Inject(SERVER_ID) serverId: string,
  ) {
    this.table = new RelocationTable(database, serverId);
  }

  /** Tells the worker of a kind. */
  register(kind: Relocatable): void {
    this.worker.register(kind);
  }

  /**
   * Writes down which artifacts a record leads to that was just linked, in the transaction that links it.
   * @throws Problem (422) where one of them is about to go with a record that was deleted
   */
  async add(manager: EntityManager, id: string, found: readonly FoundArtifact[]): Promise<void> {
    const leaving = await this.table.findLeaving(
      manager,
      found.map(({ path }) => path),
    );
    if (leaving) throw problems.artifactLeaving(leaving);
    await addArtifacts(manager, id, found);
  }

  /** Hides a record, or all; they can be brought back. */
  async markDeleted<T extends LinkedRecord>(records: RecordStore<T>, kind: Relocatable, id?: string): Promise<void> {
    const ids = await this.database.transaction(async (manager) => {
      const marked = await records.markDeleted(id, manager);
      await this.table.request(manager, kind.kind, kind.table, 'deleted', marked);
      return marked;
    });
    await this.relocated(ids);
  }

  /** Removes records for good: one, or all of a state. With `cascade` their artifacts go too. */
  async purge<T extends LinkedRecord>(
    records: RecordStore<T>,
    kind: Relocatable,
    { state, cascade, id }: { state: State; cascade: boolean; id?: string },
  ): Promise<void> {
    const ids = await this.database.transaction(async (manager) => {
      const wanted = id ? [await this.lockOne(records, manager, id, state)] : await this.lockAll(kind, manager, state);
      if (cascade) await this.table.request(manager, kind.kind, kind.table, 'gone', wanted);
      else for (const each of wanted) await this.table.forgetRecord(each, manager);
      await manager.query(`DELETE FROM "${kind.table}" WHERE id = ANY($1)`, [wanted]);
      return wanted;
    });
    await this.relocated(ids);
  }

  private async lockOne<T extends LinkedRecord>(
    records: RecordStore<T>,
    manager: EntityManager,
    id: string,
    state: State,
  ): Promise<string> {
    return (await records.lock(manager, id, state)).id;
  }

  private async lockAll(kind: Relocatable, manager: EntityManager, state: State): Promise<string[]> {
    const rows: { id: string }[] = await manager.query(
      `SELECT id FROM "${kind.table}" WHERE deleted IS ${state === 'live' ? 'NULL' : 'NOT NULL'} ORDER BY id FOR UPDATE`,
    );
    return rows.map((row) => row.id);
  }

  /**
   * Brings a deleted record back.
   * @throws Problem (404; 409 where something else has taken its place; 422 where an artifact is missing)
   */
  async undelete<T extends LinkedRecord>(records: RecordStore<T>, kind: Relocatable, id: string): Promise<void> {
    await this.bringBack(records, kind, id);
    await this.relocated([id]);
  }

  /**
   * Brings all deleted records back that can be brought back.
   * @throws Problem that names the others, and why
   */
  async undeleteAll<T extends LinkedRecord>(records: RecordStore<T>, kind: Relocatable): Promise<void> {
    const ids = await records.ids('deleted');
    const failures = new Map<string, Problem>();
    for (const id of ids) {
      await this.bringBack(records, kind, id).catch((error: unknown) => {
        if (!(error instanceof Problem)) throw error;
        if (error.status !== 404) failures.set(id, error);
      });
    }
    await this.relocated(ids.filter((id) => !failures.has(id)));
    if (failures.size) throw problems.notAllUndeleted(failures);
  }

  private async bringBack<T extends LinkedRecord>(
    records: RecordStore<T>,
    kind: Relocatable,
    id: string,
  ): Promise<void> {
    const record = await this.database.transaction((manager) => records.lock(manager, id, 'deleted'));
    const adopted = record.link && (await this.verify(kind, record));
    await this.database
      .transaction(async (manager) => {
        await records.lock(manager, id, 'deleted');
        if (adopted) await adopt(manager, kind, id, adopted);
        await records.undelete(id, manager);
        await this.table.request(manager, kind.kind, kind.table, 'live', [id]);
      })
      .catch((error: unknown) => {
        const { path } = (record.home_link ?? adopted?.link ?? record.link)!;
        throw violates(error, `${kind.table}_link_path`) ? problems.linkTaken(path) : error;
      });
  }

  /** Looks at what has to be moved back before anything is. Tells what a record of the original leads to, which we do not know yet. */
  private async verify(kind: Relocatable, record: LinkedRecord): Promise<Adopted | null> {
    const isMoving = await this.database.manager.existsBy(Relocation, { record_id: record.id });
    if (isMoving) return null;
    const listed = await kind.listedAway(record.link!);
    const known = await this.table.artifactsOf(record.id);
    // What we have not moved ourselves but is away was moved by the original, before the record was imported.
    const isForeign = !record.artifacts_known && !record.home_link && isAway(record.link!.path);
    const adopted = isForeign ? await this.adoptedFrom(kind, record, listed) : null;
    const artifacts = adopted?.artifacts ?? known;
    refuseUnlisted(record, artifacts, listed);
    await Promise.all(artifacts.map((artifact) => this.verifyOne(artifact)));
    return adopted;
  }

  /** @throws Problem (422) where the list does not name what the link of the live record named */
  private async adoptedFrom(
    kind: Relocatable,
    record: LinkedRecord,
    listed: readonly FoundArtifact[],
  ): Promise<Adopted> {
    const linked = listed.find(({ type }) => type === kind.linkedType);
    if (!linked) throw problems.badManifest(record.link!.path, `it lists nothing of the type ${kind.linkedType}`);
    const artifacts = listed.map(({ path, type, md5 }, position) => ({
      record_id: record.id,
      position,
      home: homePath(path),
      at: path,
      away: null,
      type,
      md5,
      etag: '',
    }));
    const { etag } = await this.store.head(findLocation(linked.path)!).catch((error: unknown) => {
      throw error instanceof NoSuchArtifact ? problems.noSuchArtifact(linked.path) : error;
    });
    return { link: { path: homePath(linked.path), etag, type: 's3' }, artifacts };
  }

  private async verifyOne({ home, at }: Pick<RecordArtifact, 'home' | 'at'>): Promise<void> {
    if (!(await this.isThere(at))) throw problems.noSuchArtifact(at);
    if (at !== home && (await this.isThere(home))) throw problems.placeTaken(home);
  }

  private async isThere(path: string): Promise<boolean> {
    return this.store.head(findLocation(path)!).then(
      () => true,
      (error: unknown) => {
        if (error instanceof NoSuchArtifact) return false;
        throw error;
      },
    );
  }

  /** Waits a moment for the artifacts to be where they have to be. */
  private async relocated(ids: readonly string[]): Promise<void> {
    if (!ids.length) return;
    this.worker.wake();
    for (const end = Date.now() + PATIENCE; Date.now() < end; await sleep(GLANCE))
      if ((await this.table.pending(ids)) === 0) return;
  }
}

/** What a record leads to that was deleted by the original and imported. */
interface Adopted {
  link: ArtifactLink;
  artifacts: RecordArtifact[];
}

async function adopt(manager: EntityManager, kind: Relocatable, id: string, adopted: Adopted): Promise<void> {
  await manager.delete(RecordArtifact, { record_id: id });
  if (adopted.artifacts.length) await manager.insert(RecordArtifact, adopted.artifacts);
  await manager.query(`UPDATE "${kind.table}" SET home_link = $2, artifacts_known = true WHERE id = $1`, [
    id,
    JSON.stringify(adopted.link),
  ]);
}

/** The list in the store and ours have to agree: where somebody has changed it, he is asked, and not guessed at. */
function refuseUnlisted(record: LinkedRecord, artifacts: readonly RecordArtifact[], listed: readonly FoundArtifact[]) {
  const paths = new Set(listed.map(({ path }) => path));
  const unlisted = artifacts.find(({ home, at }) => at !== home && !paths.has(at));
  if (unlisted) throw problems.badManifest(record.link!.path, `it does not list ${unlisted.at}`);
}
