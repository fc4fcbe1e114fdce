import {
  type BeforeApplicationShutdown,
  Inject,
  Injectable,
  Logger,
  type OnApplicationBootstrap,
} from '@nestjs/common';
import { InjectDataSource } from '@nestjs/typeorm';
import { DataSource, type EntityManager } from 'typeorm';
import { type ArtifactInfo, ArtifactStore, NoSuchArtifact } from '../artifacts/artifact-store.js';
import { type ArtifactLink, findLocation } from '../protocol/artifact-link.js';
import { awayPath } from './away-path.js';
import type { RecordArtifact } from './record-artifact.entity.js';
import type { FoundArtifact, Relocatable } from './relocatable.js';
import type { LinkedKind } from './relocation.entity.js';
import { type Claim, LEASE_SECONDS, RelocationTable, Superseded } from './relocation-table.js';

/** Milliseconds between two looks when nothing wakes the worker. */
const INTERVAL = 2000;
/** Records whose artifacts are moved at once by one server. */
const LANES = 4;
/** Seconds until one that met another about the same artifact is tried again. */
const SHORT_PAUSE = 0.2;

/** Names this server among all on a database. */
export const SERVER_ID = Symbol('server id');

/** Something that is not ours is where an artifact has to go. */
class Occupied extends Error {}

/**
 * Brings artifacts to where their records want them: out of the way when a record is deleted, home when it is undeleted, out of existence
 * when it is purged. All that it knows is in the database, so that a crash between any two steps costs nothing but the lease's time, and any
 * server can go on.
 */
@Injectable()
export class RelocationWorker implements OnApplicationBootstrap, BeforeApplicationShutdown {
  private readonly log = new Logger(RelocationWorker.name);
  private readonly kinds = new Map<LinkedKind, Relocatable>();
  private readonly running = new Set<Promise<void>>();
  private readonly table: RelocationTable;
  private loop: Promise<void> | null = null;
  private stopped = false;
  private roused = false;
  private rouse: () => void = () => {};

  constructor(
    @InjectDataSource() private readonly database: DataSource,
    private readonly store: ArtifactStore,
    @Inject(SERVER_ID) serverId: string,
  ) {
    this.table = new RelocationTable(database, serverId);
  }

  /** Says how a kind of record leads to its artifacts. */
  register(kind: Relocatable): void {
    this.kinds.set(kind.kind, kind);
  }

  /** Looks again at once, since something is wanted. */
  wake(): void {
    this.roused = true;
    this.rouse();
  }

  async onApplicationBootstrap(): Promise<void> {
    await this.table.dropOwnLeases();
    this.loop = this.run();
  }

  /** Before the shutdown itself: Nest closes the database, a global module as this one's is, in an order that nobody chooses. */
  async beforeApplicationShutdown(): Promise<void> {
    this.stopped = true;
    this.rouse();
    await this.loop;
    await Promise.all(this.running);
  }

  private async run(): Promise<void> {
    while (!this.stopped) {
      this.roused = false;
      await this.fillLanes().catch((error: unknown) => this.log.error(error, 'could not look for artifacts to move'));
      if (!this.roused && !this.stopped) await this.sleep();
    }
  }

  private async fillLanes(): Promise<void> {
    while (this.running.size < LANES && !this.stopped) {
      const claim = await this.table.claim();
      if (!claim) return;
      const work = this.work(claim).finally(() => {
        this.running.delete(work);
        this.wake();
      });
      this.running.add(work);
    }
  }

  private async sleep(): Promise<void> {
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, INTERVAL);
      this.rouse = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }

  /** Never rejects: what failed is tried again. */
  private async work(claim: Claim): Promise<void> {
    const facts = { record_id: claim.record_id, wanted: claim.wanted };
    const beat = setInterval(() => void this.table.extend(claim).catch(() => null), (LEASE_SECONDS * 1000) / 3);
    try {
      await this.relocate(claim);
      this.log.log('relocated', facts);
    } catch (error) {
      await this.giveBack(claim, error as Error, facts).catch((failure: unknown) =>
        this.log.error(failure, 'could not give a lease back', facts),
      );
    } finally {
      clearInterval(beat);
    }
  }

  private async giveBack(claim: Claim, error: Error, facts: object): Promise<void> {
    const isTurned = error instanceof Superseded;
    if (!isTurned) this.log.warn(`could not relocate; trying again: ${error.message}`, facts);
    const pause = isTurned ? 0 : RelocationTable.pauseAfter(claim);
    await this.table.giveBack(claim, pause, isTurned ? null : error.message);
  }

  private async relocate(claim: Claim): Promise<void> {
    const kind = this.kinds.get(claim.kind)!;
    if (claim.wanted === 'live') return this.bringHome(claim, kind);
    if (!claim.planned && !(await this.plan(claim, kind))) return this.leave(claim);
    return claim.wanted === 'deleted' ? this.moveAway(claim, kind) : this.remove(claim, kind);
  }

  /** Reads what the record leads to now; false where that cannot be told. */
  private async plan(claim: Claim, kind: Relocatable): Promise<boolean> {
    await this.learnOthers();
    const found = await kind.artifactsOf(claim.link);
    if (!found) return false;
    const artifacts = await Promise.all(found.map((artifact, index) => this.planOne(claim, artifact, index)));
    await this.table.plan(
      claim,
      artifacts.filter((artifact) => artifact !== null),
    );
    if (await this.table.isContended(claim)) {
      await this.table.giveBack(claim, SHORT_PAUSE, null);
      throw new Superseded();
    }
    return true;
  }

  /** An artifact that is not there any more keeps no record from being deleted. */
  private async planOne(claim: Claim, found: FoundArtifact, position: number): Promise<RecordArtifact | null> {
    const info = await this.find(found.path);
    if (!info) return null;
    return {
      record_id: claim.record_id,
      position,
      home: found.path,
      at: found.path,
      away: claim.wanted === 'deleted' ? await this.freeAwayPath(found.path, claim.record_id) : null,
      type: found.type,
      md5: found.md5,
      etag: info.etag,
    };
  }

  private async freeAwayPath(home: string, recordId: string): Promise<string> {
    for (let taken = 0; ; taken++) {
      const path = awayPath(home, recordId, taken);
      if (!(await this.table.isTaken(path)) && !(await this.find(path))) return path;
    }
  }

  /** Records that came in otherwise than by a request (an import, an older version) have to be known before anything is taken from them. */
  private async learnOthers(): Promise<void> {
    for (const kind of this.kinds.values()) {
      const records: { id: string; link: ArtifactLink }[] = await this.database.query(
        `SELECT id, link FROM "${kind.table}" WHERE NOT artifacts_known AND link IS NOT NULL AND deleted IS NULL`,
      );
      for (const { id, link } of records) await this.learn(kind, id, link);
    }
  }

  private async learn(kind: Relocatable, id: string, link: ArtifactLink): Promise<void> {
    const found = (await kind.artifactsOf(link)) ?? [];
    await this.database.transaction(async (manager) => {
      const rows: unknown[] = await manager.query(
        `SELECT 1 FROM "${kind.table}" WHERE id = $1 AND NOT artifacts_known AND deleted IS NULL FOR UPDATE`,
        [id],
      );
      if (!rows.length) return;
      await addArtifacts(manager, id, found);
      await manager.query(`UPDATE "${kind.table}" SET artifacts_known = true WHERE id = $1`, [id]);
    });
  }

  /** Nothing is known of the artifacts: the link stays where it leads, and nothing is touched. */
  private async leave(claim: Claim): Promise<void> {
    this.log.warn('left the artifacts of a record whose link leads to nothing readable', {
      record_id: claim.record_id,
      path: claim.link.path,
    });
    await this.table.finish(claim, async (manager) => {
      if (claim.wanted === 'gone') await this.table.forgetRecord(claim.record_id, manager);
    });
  }

  private async moveAway(claim: Claim, kind: Relocatable): Promise<void> {
    for (const { home, at, away } of await this.table.artifactsOf(claim.record_id)) {
      await this.checkpoint(claim);
      // An undelete that was turned back has brought some home already; others never left.
      if (at !== home || (await this.table.isUsedByLive(at, claim.record_id))) continue;
      await this.move(claim, at, away ?? (await this.freeAwayPath(home, claim.record_id)));
    }
    const artifacts = await this.table.artifactsOf(claim.record_id);
    const link = await kind.linkAway(claim.record_id, claim.link, artifacts);
    await this.table.finish(claim, (manager) =>
      manager.query(`UPDATE "${kind.table}" SET link = $2, home_link = $3 WHERE id = $1 AND deleted IS NOT NULL`, [
        claim.record_id,
        JSON.stringify(link),
        JSON.stringify(claim.link),
      ]),
    );
  }

  private async bringHome(claim: Claim, kind: Relocatable): Promise<void> {
    for (const { home, at } of await this.table.artifactsOf(claim.record_id)) {
      await this.checkpoint(claim);
      if (at !== home) await this.move(claim, at, home);
    }
    await kind.forgetAway(claim.record_id);
    await this.table.finish(claim, (manager) =>
      manager.query(
        `UPDATE "${kind.table}" SET link = coalesce(home_link, link), home_link = NULL WHERE id = $1 AND deleted IS NULL`,
        [claim.record_id],
      ),
    );
  }

  private async remove(claim: Claim, kind: Relocatable): Promise<void> {
    for (const { at } of await this.table.artifactsOf(claim.record_id)) {
      await this.checkpoint(claim);
      if (await this.table.isUsed(at, claim.record_id)) continue;
      await this.store.remove(findLocation(at)!);
      await this.table.forgetArtifact(at);
    }
    await kind.forgetAway(claim.record_id);
    await this.table.finish(claim, (manager) => this.table.forgetRecord(claim.record_id, manager));
  }

  /** Goes on only as long as the lease is ours and nothing else is wanted. */
  private async checkpoint(claim: Claim): Promise<void> {
    if (this.stopped || (await this.table.extend(claim)) !== claim.wanted) throw new Superseded();
  }

  private async move(claim: Claim, from: string, to: string): Promise<void> {
    const [source, target] = [findLocation(from)!, findLocation(to)!];
    await this.refuseToOverwrite(from, to);
    // A server that was killed may have left half an upload.
    if (claim.attempts > 1) await this.store.abortUploads(target.bucket, target.key);
    try {
      await this.store.move(source, target);
      await this.table.moved(from, to, (await this.store.head(target)).etag);
    } catch (error) {
      if (!(error instanceof NoSuchArtifact)) throw error;
      this.log.warn('an artifact vanished before it could be moved', { record_id: claim.record_id, path: from });
      await this.table.forgetArtifact(from);
    }
  }

  /** A move that was interrupted has left the same artifact at both places; anything else there is not ours. */
  private async refuseToOverwrite(from: string, to: string): Promise<void> {
    const there = await this.find(to);
    const here = there && (await this.find(from));
    if (there && here && !isSameContent(there, here))
      throw new Occupied(`something else is at ${to}: remove it, or move it elsewhere`);
  }

  private async find(path: string): Promise<ArtifactInfo | null> {
    return this.store.head(findLocation(path)!).catch((error: unknown) => {
      if (error instanceof NoSuchArtifact) return null;
      throw error;
    });
  }
}

function isSameContent(one: ArtifactInfo, other: ArtifactInfo): boolean {
  const md5 = one.metadata['md5sum'];
  return one.size === other.size && (one.etag === other.etag || (!!md5 && md5 === other.metadata['md5sum']));
}

/** Writes down which artifacts a live record leads to. */
export async function addArtifacts(
  manager: EntityManager,
  recordId: string,
  found: readonly FoundArtifact[],
): Promise<void> {
  const rows = found.map(({ path, type, md5 }, position) => ({
    record_id: recordId,
    position,
    home: path,
    at: path,
    away: null,
    type,
    md5,
    etag: '',
  }));
  if (rows.length) await manager.insert('record_artifacts', rows);
}
