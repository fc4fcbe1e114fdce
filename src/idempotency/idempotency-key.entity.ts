import { Column, Entity, Index, PrimaryColumn } from 'typeorm';

/** A key that a client gave to a request, so that it may repeat the request without making a second record. Kept for a day. */
@Entity('idempotency_keys')
export class IdempotencyKey {
  /** Path of the request, with its version. */
  @PrimaryColumn('text')
  route: string;

  @PrimaryColumn('text')
  key: string;

  /** Digest of what the request asked for. */
  @Column('text')
  fingerprint: string;

  /** Id of the record that the request makes, decided before it is made. */
  @Column('uuid')
  record_id: string;

  /** What was answered; null until it is known. */
  @Column('text', { nullable: true })
  answer: string | null;

  /** Until when the server that works on the request is taken to be alive. */
  @Column('timestamptz')
  lease_until: Date;

  @Column('timestamptz', { default: () => 'now()' })
  @Index('idempotency_keys_created')
  created: Date;
}
