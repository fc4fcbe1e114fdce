import { readdir, readFile } from 'node:fs/promises';
import path from 'node:path';
import { type Kind, KINDS } from './kinds.js';
import type { OriginalRecord } from './original-records.js';

/** The import cannot be done; the message says what to change. */
export class ImportFailure extends Error {}

/** One list of the original. */
export interface Listing {
  kind: Kind;
  /** Where it is from: a file name or a path of the API. */
  from: string;
  records: OriginalRecord[];
}

/** Everything that an original has. */
export interface Original {
  listings: Listing[];
  /** What was not read, and why. */
  notes: string[];
}

/** Milliseconds that the original gets for one list. */
const TIMEOUT = 120_000;

function recordsOf(from: string, json: unknown): OriginalRecord[] {
  const records = typeof json === 'object' && json !== null ? Object.values(json) : null;
  const isRecord = (value: unknown) => typeof value === 'object' && value !== null && !Array.isArray(value);
  if (!records?.every(isRecord)) throw new ImportFailure(`${from} is no list of records`);
  return records as OriginalRecord[];
}

/** A data file of the original: its kind, and the version in its name. */
function kindOfFile(name: string): Kind | null {
  if (!/^v\d.*\.json$/.test(name)) return null;
  const isDeleted = name.includes('deleted_');
  return KINDS.find((kind) => kind.isDeleted === isDeleted && name.endsWith(`_${kind.file}.json`)) ?? null;
}

const byVersion = (one: string, other: string) => one.localeCompare(other, 'en', { numeric: true });

/**
 * Reads the data files of the original from its volume, as `v2.1_images.json`. Of a list in several versions the newest counts.
 * @throws ImportFailure
 */
export async function readDirectory(directory: string): Promise<Original> {
  const names = await readdir(directory).catch((error: NodeJS.ErrnoException) => {
    throw new ImportFailure(`${directory} cannot be read (${error.code})`);
  });
  const files = names.toSorted(byVersion).flatMap((name) => ({ name, kind: kindOfFile(name) }));
  const original: Original = { listings: [], notes: [] };
  for (const kind of KINDS) {
    const versions = files.filter((file) => file.kind === kind).map(({ name }) => name);
    const newest = versions.pop();
    if (newest) original.listings.push(await readListing(directory, newest, kind));
    original.notes.push(...versions.map((name) => `${name} was not read: ${newest} is newer`));
  }
  if (!original.listings.length)
    throw new ImportFailure(`${directory} holds no data file of the original, as v2.1_images.json`);
  return original;
}

async function readListing(directory: string, name: string, kind: Kind): Promise<Listing> {
  const text = await readFile(path.join(directory, name), 'utf8').catch((error: NodeJS.ErrnoException) => {
    throw new ImportFailure(`${name} cannot be read (${error.code})`);
  });
  try {
    return { kind, from: name, records: recordsOf(name, JSON.parse(text)) };
  } catch (error) {
    if (error instanceof ImportFailure) throw error;
    throw new ImportFailure(`${name} is not JSON: ${(error as Error).message}`);
  }
}

/**
 * Asks the API of a running original, version 3.
 * @param base with the prefix of a gateway where there is one, as `https://api-gw-service-nmn.local/apis/ims`
 * @param token sent as Bearer; null where none is wanted
 * @throws ImportFailure
 */
export async function readApi(base: string, token: string | null): Promise<Original> {
  const original: Original = { listings: [], notes: [] };
  for (const kind of KINDS) {
    const from = `/v3/${kind.path}`;
    const answer = await ask(`${base.replace(/\/+$/, '')}${from}`, from, token);
    if (answer === null) original.notes.push(`${from} was not read: this version of the original has no such list`);
    else original.listings.push({ kind, from, records: recordsOf(from, answer) });
  }
  if (!original.listings.length) throw new ImportFailure('there is no Image Management Service at this url');
  return original;
}

/** The JSON at a url; null where there is nothing. */
async function ask(url: string, from: string, token: string | null): Promise<unknown> {
  const headers = { accept: 'application/json', ...(token && { authorization: `Bearer ${token}` }) };
  const failed = (why: string) => new ImportFailure(`${from} of the original cannot be read: ${why}`);
  const response = await fetch(url, { headers, signal: AbortSignal.timeout(TIMEOUT) }).catch((error: Error) => {
    throw failed(error.cause instanceof Error ? error.cause.message : error.message);
  });
  if (response.status === 404) return null;
  if (!response.ok) throw failed(`it answers ${response.status}`);
  return response.json().catch(() => {
    throw failed('the answer is not JSON');
  });
}
