import type { MigrationInterface, QueryRunner } from 'typeorm';

/** Each list with the column of its names. */
const LISTS = [
  ['public_keys', 'name'],
  ['recipes', 'name'],
  ['images', 'name'],
  ['jobs', 'image_root_archive_name'],
] as const;

/** What lists are ordered, paged and filtered by; and the keys of requests that may be repeated. */
export class FiltersAndKeys1795488000000 implements MigrationInterface {
  name = 'FiltersAndKeys1795488000000';

  async up(runner: QueryRunner): Promise<void> {
    for (const [table, name] of LISTS) {
      await runner.query(`CREATE INDEX "${table}_created" ON "${table}" ("created", "id")`);
      // A name may be longer than a row of an index; text_pattern_ops serves prefixes and equality.
      await runner.query(`CREATE INDEX "${table}_name" ON "${table}" (left("${name}", 128) text_pattern_ops)`);
    }
    for (const table of ['recipes', 'images', 'jobs'])
      await runner.query(`CREATE INDEX "${table}_arch" ON "${table}" ("arch", "created", "id")`);
    for (const column of ['status', 'job_type'])
      await runner.query(`CREATE INDEX "jobs_${column}" ON "jobs" ("${column}", "created", "id")`);
    await runner.query(`CREATE INDEX "images_metadata" ON "images" USING gin ("metadata")`);
    await runner.query(`
      CREATE TABLE "idempotency_keys" (
        "route" text NOT NULL, "key" text NOT NULL, "fingerprint" text NOT NULL, "record_id" uuid NOT NULL, "answer" text,
        "lease_until" TIMESTAMP WITH TIME ZONE NOT NULL, "created" TIMESTAMP WITH TIME ZONE NOT NULL DEFAULT now(),
        CONSTRAINT "PK_idempotency_keys" PRIMARY KEY ("route", "key"))`);
    await runner.query(`CREATE INDEX "idempotency_keys_created" ON "idempotency_keys" ("created")`);
  }

  async down(runner: QueryRunner): Promise<void> {
    await runner.query(`DROP TABLE "idempotency_keys"`);
    const indexes = [
      ...LISTS.flatMap(([table]) => [`${table}_created`, `${table}_name`]),
      ...['recipes', 'images', 'jobs'].map((table) => `${table}_arch`),
      'jobs_status',
      'jobs_job_type',
      'images_metadata',
    ];
    for (const index of indexes) await runner.query(`DROP INDEX "${index}"`);
  }
}
