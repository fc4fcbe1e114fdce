import type { MigrationInterface, QueryRunner } from 'typeorm';

/** Recipes, and what moves the artifacts of deleted records. */
export class RecipesAndRelocations1795471200000 implements MigrationInterface {
  name = 'RecipesAndRelocations1795471200000';

  async up(runner: QueryRunner): Promise<void> {
    await runner.query(`
      CREATE TABLE "recipes" (
        "id" uuid NOT NULL, "created" TIMESTAMP WITH TIME ZONE NOT NULL, "name" text NOT NULL, "recipe_type" text NOT NULL,
        "linux_distribution" text NOT NULL, "link" jsonb, "arch" text NOT NULL, "require_dkms" boolean NOT NULL,
        "template_dictionary" jsonb, "home_link" jsonb, "artifacts_known" boolean NOT NULL DEFAULT false,
        "deleted" TIMESTAMP WITH TIME ZONE,
        CONSTRAINT "PK_recipes" PRIMARY KEY ("id"))`);
    await runner.query(
      `ALTER TABLE "images" ADD "home_link" jsonb, ADD "artifacts_known" boolean NOT NULL DEFAULT false`,
    );
    // A record whose artifacts are on their way home has its place already.
    await runner.query(`DROP INDEX "images_link_path"`);
    for (const table of ['images', 'recipes']) {
      await runner.query(
        `CREATE UNIQUE INDEX "${table}_link_path" ON "${table}" ((coalesce("home_link", "link") ->> 'path')) WHERE "deleted" IS NULL`,
      );
      await runner.query(
        `CREATE INDEX "${table}_artifacts_unknown" ON "${table}" ("id") WHERE NOT "artifacts_known" AND "link" IS NOT NULL AND "deleted" IS NULL`,
      );
    }
    await runner.query(`
      CREATE TABLE "record_artifacts" (
        "record_id" uuid NOT NULL, "position" integer NOT NULL, "home" text NOT NULL, "at" text NOT NULL, "away" text,
        "type" text NOT NULL, "md5" text, "etag" text NOT NULL,
        CONSTRAINT "PK_record_artifacts" PRIMARY KEY ("record_id", "position"))`);
    await runner.query(`CREATE INDEX "record_artifacts_at" ON "record_artifacts" ("at")`);
    await runner.query(`CREATE INDEX "record_artifacts_home" ON "record_artifacts" ("home")`);
    await runner.query(`
      CREATE TABLE "relocations" (
        "record_id" uuid NOT NULL, "kind" text NOT NULL, "wanted" text NOT NULL, "link" jsonb NOT NULL,
        "planned" boolean NOT NULL, "attempts" integer NOT NULL DEFAULT '0',
        "not_before" TIMESTAMP WITH TIME ZONE NOT NULL, "holder" text, "lease_until" TIMESTAMP WITH TIME ZONE,
        "fence" bigint NOT NULL DEFAULT '0', "reason" text,
        CONSTRAINT "PK_relocations" PRIMARY KEY ("record_id"))`);
  }

  async down(runner: QueryRunner): Promise<void> {
    for (const table of ['relocations', 'record_artifacts', 'recipes']) await runner.query(`DROP TABLE "${table}"`);
    for (const index of ['images_artifacts_unknown', 'images_link_path']) await runner.query(`DROP INDEX "${index}"`);
    await runner.query(`ALTER TABLE "images" DROP "home_link", DROP "artifacts_known"`);
    await runner.query(
      `CREATE UNIQUE INDEX "images_link_path" ON "images" (("link" ->> 'path')) WHERE "deleted" IS NULL`,
    );
  }
}
