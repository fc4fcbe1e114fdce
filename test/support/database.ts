import { randomUUID } from 'node:crypto';
import pg from 'pg';

/** A database of one test file. */
export interface TestDatabase {
  url: string;
  /** Removes it, whoever is connected. */
  drop(): Promise<void>;
}

/** Runs a statement on the server that `test/global-setup.mjs` started. */
async function administer(statement: string): Promise<void> {
  const client = new pg.Client(urlOf('postgres'));
  await client.connect();
  try {
    await client.query(statement);
  } finally {
    await client.end();
  }
}

function urlOf(database: string): string {
  const url = new URL(process.env['IMS_TEST_POSTGRES_URL']!);
  url.pathname = `/${database}`;
  return url.href;
}

async function create(template: 'ims' | 'template0'): Promise<TestDatabase> {
  const name = `test_${randomUUID().replaceAll('-', '')}`;
  await administer(`CREATE DATABASE ${name} TEMPLATE ${template}`);
  return { url: urlOf(name), drop: () => administer(`DROP DATABASE ${name} WITH (FORCE)`) };
}

/** A new database with the schema and without records. */
export function createTestDatabase(): Promise<TestDatabase> {
  return create('ims');
}

/** A new database without a schema. */
export function createEmptyTestDatabase(): Promise<TestDatabase> {
  return create('template0');
}

/** As many databases as the tests of one file want. */
export class TestDatabases {
  private readonly databases: TestDatabase[] = [];

  static start(): Promise<TestDatabases> {
    return Promise.resolve(new TestDatabases());
  }

  /** The url of a new database with the schema and without records. */
  async create(): Promise<string> {
    const database = await createTestDatabase();
    this.databases.push(database);
    return database.url;
  }

  /** Removes all databases. */
  async stop(): Promise<void> {
    for (const database of this.databases.splice(0)) await database.drop();
  }
}
