import { ApiProperty } from '@nestjs/swagger';
import { Column, DeleteDateColumn, Entity, Index, PrimaryColumn } from 'typeorm';
import { DeletedTime, Time } from '../database/wire.js';
import { PublicKeyLine, Text } from '../errors/members.js';

/** An SSH public key that opens the shells of jobs. */
// Indexes of every kind are described by the migrations: several are partial, or of expressions.
@Index('public_keys_name', { synchronize: false })
@Index('public_keys_created', { synchronize: false })
@Entity('public_keys')
export class PublicKey {
  @PrimaryColumn('uuid')
  @ApiProperty({ format: 'uuid', readOnly: true })
  id: string;

  @Column('timestamptz')
  @Time()
  created: Date;

  @Column('text')
  @Text()
  @ApiProperty({ description: 'For people: several keys may have the same name.', example: 'username public key' })
  name: string;

  /** Kept to the letter: clients find their key by comparing the whole text. */
  @Column('text')
  @PublicKeyLine()
  @ApiProperty({
    description: 'One line, as in ~/.ssh/id_ed25519.pub.',
    example: 'ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBhF9mXk0jYpKpRk5cGkq0yqgW0aYpDk8uQyQ2WQv1pN username@host',
  })
  public_key: string;

  @DeleteDateColumn({ type: 'timestamptz', nullable: true })
  @DeletedTime()
  deleted: Date | null;
}
