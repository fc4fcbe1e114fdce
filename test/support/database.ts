import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import pg from 'pg';
import { type EmbeddedPostgres, startEmbeddedPostgres } from '../../src/embedded/postgres.js';

/** A PostgreSQL for the tests of one file, with as many databases as they want. Nothing of it outlives a crash of the machine. */
export class TestDatabases {
  private made = 0;

  private constructor(
    private readonly directory: string,
    private readonly postgres: EmbeddedPostgres,
  ) {}

  static async start(): Promise<TestDatabases> {
    const directory = await mkdtemp(path.join(tmpdir(), 'ims-test-postgres-'));
    return new TestDatabases(directory, await startEmbeddedPostgres({ directory, durable: false }));
  }

  /** The url of a new database without a schema. */
  async create(): Promise<string> {
    const name = `test_${++this.made}`;
    const client = new pg.Client(this.postgres.url);
    await client.connect();
    await client.query(`CREATE DATABASE ${name}`);
    await client.end();
    const url = new URL(this.postgres.url);
    url.pathname = `/${name}`;
    return url.href;
  }

  /** Ends the server and removes all databases. */
  async stop(): Promise<void> {
    await this.postgres.stop();
    await rm(this.directory, { recursive: true, force: true });
  }
}
