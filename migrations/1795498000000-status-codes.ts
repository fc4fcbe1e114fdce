import type { MigrationInterface, QueryRunner } from 'typeorm';

/** Why a job waits or has ended, for programs. */
export class StatusCodes1795498000000 implements MigrationInterface {
  async up(runner: QueryRunner): Promise<void> {
    await runner.query(`ALTER TABLE "jobs" ADD "status_code" text`);
  }

  async down(runner: QueryRunner): Promise<void> {
    await runner.query(`ALTER TABLE "jobs" DROP COLUMN "status_code"`);
  }
}
