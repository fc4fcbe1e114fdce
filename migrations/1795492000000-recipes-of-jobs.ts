import type { MigrationInterface, QueryRunner } from 'typeorm';

/** What create jobs build from, and what the images that they make tell of it. */
export class RecipesOfJobs1795492000000 implements MigrationInterface {
  async up(runner: QueryRunner): Promise<void> {
    await runner.query(`ALTER TABLE "jobs" ADD "recipe" jsonb`);
    await runner.query(`ALTER TABLE "images" ADD "recipe" jsonb`);
  }

  async down(runner: QueryRunner): Promise<void> {
    await runner.query(`ALTER TABLE "images" DROP COLUMN "recipe"`);
    await runner.query(`ALTER TABLE "jobs" DROP COLUMN "recipe"`);
  }
}
