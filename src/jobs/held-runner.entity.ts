import { Column, Entity, PrimaryColumn } from 'typeorm';

/** Which server works on the jobs of a runner, and until when it does so without saying it again. */
@Entity('runner_leases')
export class HeldRunner {
  @PrimaryColumn('text')
  runner: string;

  /** Names the server among those of the runner. */
  @Column('text')
  holder: string;

  @Column('timestamptz')
  lease_until: Date;
}
