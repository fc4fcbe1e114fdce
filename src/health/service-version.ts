import { readFileSync } from 'node:fs';
import path from 'node:path';

/** Finds package.json above this file: the build lies one level deeper than the source. */
function findPackage(directory: string): string {
  const file = path.join(directory, 'package.json');
  try {
    return readFileSync(file, 'utf8');
  } catch (error) {
    if (directory === path.dirname(directory)) throw error;
    return findPackage(path.dirname(directory));
  }
}

/** The version of this server. */
export const SERVICE_VERSION = (JSON.parse(findPackage(import.meta.dirname)) as { version: string }).version;
