/** A place in a list of records: behind the record that was created then and has this id. */
export interface Cursor {
  /** UTC with microseconds, without offset. */
  created: string;
  id: string;
}

/** Format of PostgreSQL for `Cursor.created`. */
export const CURSOR_TIME = 'YYYY-MM-DD"T"HH24:MI:SS.US';

const TEXT = /^(\d{4,6}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6})_([0-9a-f-]{36})$/;

/** What clients hand back as `after`. They are to take it as it is. */
export function writeCursor({ created, id }: Cursor): string {
  return Buffer.from(`${created}_${id}`).toString('base64url');
}

/** What a client handed back; null where we never gave it out. */
export function readCursor(text: string): Cursor | null {
  const [, created, id] = TEXT.exec(Buffer.from(text, 'base64url').toString('latin1')) ?? [];
  return created && id ? { created, id } : null;
}
