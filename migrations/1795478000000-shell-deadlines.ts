import type { MigrationInterface, QueryRunner } from 'typeorm';

/** When a shell that nobody ends is ended, and how finished jobs are found that were kept long enough. */
export class ShellDeadlines1795478000000 implements MigrationInterface {
  async up(runner: QueryRunner): Promise<void> {
    await runner.query(
      `ALTER TABLE "jobs" ADD "shell_deadline" TIMESTAMP WITH TIME ZONE, ADD "shell_idle_seconds" integer`,
    );
    await runner.query(`CREATE INDEX "jobs_ended" ON "jobs" ("ended") WHERE "deleted" IS NULL`);
  }

  async down(runner: QueryRunner): Promise<void> {
    await runner.query(`DROP INDEX "jobs_ended"`);
    await runner.query(`ALTER TABLE "jobs" DROP COLUMN "shell_idle_seconds", DROP COLUMN "shell_deadline"`);
  }
}
