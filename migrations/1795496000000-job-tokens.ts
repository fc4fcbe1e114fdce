import type { MigrationInterface, QueryRunner } from 'typeorm';

/** By what a worker shows which job it works for. No token is that of a job which was made before. */
export class JobTokens1795496000000 implements MigrationInterface {
  async up(runner: QueryRunner): Promise<void> {
    await runner.query(`ALTER TABLE "jobs" ADD "token" text`);
  }

  async down(runner: QueryRunner): Promise<void> {
    await runner.query(`ALTER TABLE "jobs" DROP COLUMN "token"`);
  }
}
