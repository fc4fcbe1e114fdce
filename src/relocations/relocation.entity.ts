import { Column, Entity, PrimaryColumn } from 'typeorm';
import type { ArtifactLink } from '../protocol/artifact-link.js';

/** Kinds of records that lead to artifacts. */
export type LinkedKind = 'image' | 'recipe';

/** Where the artifacts of a record have to be: out of the way, at home, or nowhere. */
export type Wanted = 'deleted' | 'live' | 'gone';

/**
 * Says that the artifacts of a record are not yet where they have to be. The row is there from the transaction that deletes, undeletes or
 * purges the record until the worker has done it, through crashes and restarts. A request that comes in between changes `wanted`; the
 * worker turns round at the next artifact.
 */
@Entity('relocations')
export class Relocation {
  @PrimaryColumn('uuid')
  record_id: string;

  @Column('text')
  kind: LinkedKind;

  @Column('text')
  wanted: Wanted;

  /** The link that the record has when it is not deleted. Kept here since a purged record has no row of its own. */
  @Column('jsonb')
  link: ArtifactLink;

  /** Whether the artifacts of the record were read from its link for this relocation. */
  @Column('boolean')
  planned: boolean;

  /** How often it was begun since it was asked for. */
  @Column('integer', { default: 0 })
  attempts: number;

  /** It is not begun before this moment: a failure is tried again later and later. */
  @Column('timestamptz')
  not_before: Date;

  /** The server that works on it. */
  @Column('text', { nullable: true })
  holder: string | null;

  /** Until when its holder alone works on it. */
  @Column('timestamptz', { nullable: true })
  lease_until: Date | null;

  /** Grows with each claim: who comes back with an old one has lost the lease. */
  @Column('bigint', { default: 0 })
  fence: string;

  /** Why the last try failed. */
  @Column('text', { nullable: true })
  reason: string | null;
}
