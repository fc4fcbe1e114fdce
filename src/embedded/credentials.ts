import { randomBytes } from 'node:crypto';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import type { S3Credentials } from '../config/config.js';

/**
 * Keys of an embedded store for which the environment names none: made once, kept where only the owner of the state directory reads them.
 * A key that is the same at every site would be no key.
 */
export async function provideCredentials(directory: string): Promise<S3Credentials> {
  const file = path.join(directory, 'credentials.json');
  const made: S3Credentials = {
    accessKey: `IMS${randomBytes(8).toString('hex').toUpperCase()}`,
    secretKey: randomBytes(30).toString('base64url'),
  };
  await mkdir(directory, { recursive: true, mode: 0o700 });
  try {
    await writeFile(file, JSON.stringify(made), { flag: 'wx', mode: 0o600, flush: true });
    return made;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
  }
  try {
    return JSON.parse(await readFile(file, 'utf8')) as S3Credentials;
  } catch (error) {
    throw new Error(`${file} is not readable as JSON: remove it, or set S3_ACCESS_KEY and S3_SECRET_KEY`, {
      cause: error,
    });
  }
}
