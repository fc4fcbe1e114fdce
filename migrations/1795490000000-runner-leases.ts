import type { MigrationInterface, QueryRunner } from 'typeorm';

/** Which of the servers that share a launcher works on its jobs. */
export class RunnerLeases1795490000000 implements MigrationInterface {
  async up(runner: QueryRunner): Promise<void> {
    await runner.query(`
      CREATE TABLE "runner_leases" (
        "runner" text NOT NULL, "holder" text NOT NULL, "lease_until" TIMESTAMP WITH TIME ZONE NOT NULL,
        CONSTRAINT "PK_runner_leases" PRIMARY KEY ("runner"))`);
  }

  async down(runner: QueryRunner): Promise<void> {
    await runner.query(`DROP TABLE "runner_leases"`);
  }
}
