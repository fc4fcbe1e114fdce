import { Column, Entity, Index, PrimaryColumn } from 'typeorm';

/**
 * An artifact that a record leads to, and where it is now. Several records may lead to one artifact: they have the same `at`. Rows are
 * made when a record is linked, and made anew from what the link leads to when the record is deleted.
 */
@Entity('record_artifacts')
export class RecordArtifact {
  @PrimaryColumn('uuid')
  record_id: string;

  /** Place in the list of the manifest; the manifest itself is last, so that it stays readable for longest. */
  @PrimaryColumn('integer')
  position: number;

  /** `s3://<bucket>/<key>` at which the artifact belongs as long as its record is not deleted. */
  @Column('text')
  @Index('record_artifacts_home')
  home: string;

  /** Where it is. */
  @Column('text')
  @Index('record_artifacts_at')
  at: string;

  /** Where it goes when its record is deleted; null until that is decided. */
  @Column('text', { nullable: true })
  away: string | null;

  /** Media type, as manifests name it. */
  @Column('text')
  type: string;

  /** md5 of the content in hex, where the manifest gives one. */
  @Column('text', { nullable: true })
  md5: string | null;

  @Column('text')
  etag: string;
}
