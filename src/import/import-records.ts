import type { DataSource, EntityManager } from 'typeorm';
import { type OriginalRecord, type Row, Unfit } from './original-records.js';
import type { Listing, Original } from './sources.js';

/** A record that was not taken over. */
export interface Skipped {
  /** Its id or xname, as far as it has one. */
  id: string;
  name: string;
  reason: string;
}

/** What became of one list. */
export interface Outcome {
  kind: string;
  from: string;
  imported: number;
  /** Records that were here already; they are left as they are. */
  known: number;
  skipped: Skipped[];
}

/** Ends the transaction of a dry run. */
class Undo extends Error {}

/**
 * Takes over all records of an original with their ids and times, in one transaction: an import that fails has changed nothing, and one
 * that is repeated takes over what is new. Records that are here already stay as they are.
 * @param dryRun whether only to say what would happen
 */
export async function importRecords(
  database: DataSource,
  { listings }: Original,
  { dryRun = false }: { dryRun?: boolean } = {},
): Promise<Outcome[]> {
  const outcomes: Outcome[] = [];
  await database
    .transaction(async (manager) => {
      for (const listing of listings) outcomes.push(await importListing(manager, listing));
      if (dryRun) throw new Undo();
    })
    .catch((error: unknown) => {
      if (!(error instanceof Undo)) throw error;
    });
  return outcomes;
}

async function importListing(manager: EntityManager, { kind, from, records }: Listing): Promise<Outcome> {
  const outcome: Outcome = { kind: kind.name, from, imported: 0, known: 0, skipped: [] };
  for (const record of records) {
    try {
      const row = await kind.rowOf(record);
      if (await insert(manager, kind.table, row)) outcome.imported++;
      else if (await isKnown(manager, kind.table, kind.key, row)) outcome.known++;
      else throw new Unfit(`another record links to ${(row['link'] as { path: string }).path} already`);
    } catch (error) {
      if (!(error instanceof Unfit)) throw error;
      outcome.skipped.push({ ...labelOf(record), reason: error.message });
    }
  }
  return outcome;
}

/** Inserts a row, where neither it nor one with the same link is there. */
async function insert(manager: EntityManager, table: string, row: Row): Promise<boolean> {
  const columns = Object.keys(row).map((name) => `"${name}"`);
  const values = Object.values(row).map((value) =>
    typeof value === 'object' && value !== null ? JSON.stringify(value) : value,
  );
  // The moment at which a finished job of the original ended is not known; it is kept from now on as long as others.
  if (table === 'jobs') columns.push('"launched"', '"ended"', '"released"');
  const places = [
    ...values.map((_, index) => `$${index + 1}`),
    ...(table === 'jobs' ? ['now()', 'now()', 'now()'] : []),
  ];
  const rows: unknown[] = await manager.query(
    `WITH inserted AS (INSERT INTO "${table}" (${columns.join(', ')}) VALUES (${places.join(', ')}) ON CONFLICT DO NOTHING RETURNING 1)
     SELECT 1 FROM inserted`,
    values,
  );
  return rows.length > 0;
}

async function isKnown(manager: EntityManager, table: string, key: string, row: Row): Promise<boolean> {
  const rows: unknown[] = await manager.query(`SELECT 1 FROM "${table}" WHERE "${key}" = $1`, [row[key]]);
  return rows.length > 0;
}

function labelOf({ id, xname, name, image_root_archive_name }: OriginalRecord): { id: string; name: string } {
  const text = (value: unknown) => (typeof value === 'string' ? value.slice(0, 100) : '');
  return { id: text(id) || text(xname) || 'without an id', name: text(name) || text(image_root_archive_name) };
}

/** What became of an import, for people. */
export function reportOf({ notes }: Original, outcomes: readonly Outcome[]): string {
  const lines = outcomes.flatMap(({ kind, from, imported, known, skipped }) => [
    `${kind} (${from}): ${imported} imported, ${known} here already, ${skipped.length} skipped`,
    ...skipped.map(({ id, name, reason }) => `  skipped ${id}${name && ` (${name})`}: ${reason}`),
  ]);
  return [...lines, ...notes].map((line) => `${line}\n`).join('');
}
