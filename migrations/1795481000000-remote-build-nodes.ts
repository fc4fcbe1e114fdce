import type { MigrationInterface, QueryRunner } from 'typeorm';

/** Machines on which jobs of their own architecture can be run. */
export class RemoteBuildNodes1795481000000 implements MigrationInterface {
  async up(runner: QueryRunner): Promise<void> {
    await runner.query(
      `CREATE TABLE "remote_build_nodes" ("xname" text NOT NULL, "created" TIMESTAMP WITH TIME ZONE NOT NULL DEFAULT now(),
        CONSTRAINT "PK_remote_build_nodes" PRIMARY KEY ("xname"))`,
    );
  }

  async down(runner: QueryRunner): Promise<void> {
    await runner.query(`DROP TABLE "remote_build_nodes"`);
  }
}
