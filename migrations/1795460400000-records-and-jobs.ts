import type { MigrationInterface, QueryRunner } from 'typeorm';

/** Public keys, images and jobs. */
export class RecordsAndJobs1795460400000 implements MigrationInterface {
  name = 'RecordsAndJobs1795460400000';

  async up(runner: QueryRunner): Promise<void> {
    await runner.query(`
      CREATE TABLE "public_keys" (
        "id" uuid NOT NULL, "created" TIMESTAMP WITH TIME ZONE NOT NULL, "name" text NOT NULL, "public_key" text NOT NULL,
        "deleted" TIMESTAMP WITH TIME ZONE,
        CONSTRAINT "PK_public_keys" PRIMARY KEY ("id"))`);
    await runner.query(`
      CREATE TABLE "images" (
        "id" uuid NOT NULL, "created" TIMESTAMP WITH TIME ZONE NOT NULL, "name" text NOT NULL, "link" jsonb, "arch" text NOT NULL,
        "metadata" jsonb NOT NULL DEFAULT '{}', "job_id" uuid, "deleted" TIMESTAMP WITH TIME ZONE,
        CONSTRAINT "PK_images" PRIMARY KEY ("id"))`);
    await runner.query(
      `CREATE UNIQUE INDEX "images_link_path" ON "images" (("link" ->> 'path')) WHERE "deleted" IS NULL`,
    );
    await runner.query(
      `CREATE UNIQUE INDEX "images_unlinked_job" ON "images" ("job_id") WHERE "link" IS NULL AND "deleted" IS NULL`,
    );
    await runner.query(`
      CREATE TABLE "jobs" (
        "id" uuid NOT NULL, "created" TIMESTAMP WITH TIME ZONE NOT NULL, "job_type" text NOT NULL, "status" text NOT NULL,
        "artifact_id" uuid NOT NULL, "public_key_id" uuid NOT NULL, "image_root_archive_name" text NOT NULL,
        "kernel_file_name" text NOT NULL, "initrd_file_name" text NOT NULL, "kernel_parameters_file_name" text NOT NULL,
        "enable_debug" boolean NOT NULL, "build_env_size" integer NOT NULL, "job_mem_size" integer NOT NULL,
        "require_dkms" boolean NOT NULL, "arch" text NOT NULL, "ssh_containers" jsonb, "resultant_image_id" uuid,
        "kubernetes_job" text NOT NULL, "kubernetes_service" text NOT NULL, "kubernetes_configmap" text NOT NULL,
        "kubernetes_pvc" text NOT NULL, "kubernetes_namespace" text NOT NULL, "kubernetes_secret" text,
        "remote_build_node" text NOT NULL, "status_reason" text, "progress" jsonb,
        "public_key" text NOT NULL, "source" jsonb NOT NULL, "runner" text NOT NULL,
        "launched" TIMESTAMP WITH TIME ZONE, "lease_until" TIMESTAMP WITH TIME ZONE, "ended" TIMESTAMP WITH TIME ZONE,
        "released" TIMESTAMP WITH TIME ZONE, "deleted" TIMESTAMP WITH TIME ZONE,
        CONSTRAINT "PK_jobs" PRIMARY KEY ("id"))`);
    // What the reconciler looks for every two seconds: few rows of a table that keeps all finished jobs.
    await runner.query(
      `CREATE INDEX "jobs_unfinished" ON "jobs" ("runner") WHERE "released" IS NULL OR "deleted" IS NOT NULL`,
    );
  }

  async down(runner: QueryRunner): Promise<void> {
    for (const table of ['jobs', 'images', 'public_keys']) await runner.query(`DROP TABLE "${table}"`);
  }
}
