import type { MigrationInterface, QueryRunner } from 'typeorm';

/** What happened to a job, kept by the database itself, so that no way of changing a job forgets it. */
export class JobEvents1795475000000 implements MigrationInterface {
  async up(runner: QueryRunner): Promise<void> {
    await runner.query(`
      CREATE TABLE "job_events" (
        "id" bigint GENERATED ALWAYS AS IDENTITY NOT NULL, "job_id" uuid NOT NULL,
        "time" TIMESTAMP WITH TIME ZONE NOT NULL DEFAULT now(), "status" text NOT NULL, "status_reason" text, "progress" jsonb,
        CONSTRAINT "PK_job_events" PRIMARY KEY ("id"),
        CONSTRAINT "FK_job_events_job" FOREIGN KEY ("job_id") REFERENCES "jobs" ("id") ON DELETE CASCADE)`);
    await runner.query(`CREATE INDEX "job_events_job" ON "job_events" ("job_id", "id")`);
    await runner.query(`
      CREATE FUNCTION "record_job_event"() RETURNS trigger LANGUAGE plpgsql AS $$
      BEGIN
        INSERT INTO "job_events" ("job_id", "status", "status_reason", "progress")
        VALUES (NEW."id", NEW."status", NEW."status_reason", NEW."progress");
        PERFORM pg_notify('job_events', NEW."id"::text);
        RETURN NULL;
      END $$`);
    await runner.query(`
      CREATE TRIGGER "job_inserted" AFTER INSERT ON "jobs" FOR EACH ROW EXECUTE FUNCTION "record_job_event"()`);
    await runner.query(`
      CREATE TRIGGER "job_changed" AFTER UPDATE ON "jobs" FOR EACH ROW
      WHEN (OLD."status" IS DISTINCT FROM NEW."status" OR OLD."status_reason" IS DISTINCT FROM NEW."status_reason"
        OR OLD."progress" IS DISTINCT FROM NEW."progress")
      EXECUTE FUNCTION "record_job_event"()`);
  }

  async down(runner: QueryRunner): Promise<void> {
    for (const trigger of ['job_inserted', 'job_changed']) await runner.query(`DROP TRIGGER "${trigger}" ON "jobs"`);
    await runner.query(`DROP FUNCTION "record_job_event"()`);
    await runner.query(`DROP TABLE "job_events"`);
  }
}
