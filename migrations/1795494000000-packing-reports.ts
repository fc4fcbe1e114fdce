import type { MigrationInterface, QueryRunner } from 'typeorm';

/** What packing the image of a job took. */
export class PackingReports1795494000000 implements MigrationInterface {
  async up(runner: QueryRunner): Promise<void> {
    await runner.query(`ALTER TABLE "jobs" ADD "packing" jsonb`);
  }

  async down(runner: QueryRunner): Promise<void> {
    await runner.query(`ALTER TABLE "jobs" DROP COLUMN "packing"`);
  }
}
