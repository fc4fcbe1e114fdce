import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import type { HostKey } from '../../protocol/job-report.js';
import type { Commands } from '../commands.js';

/** Makes a key pair for a sshd, and tells its public part. */
export async function makeHostKey(file: string, commands: Commands): Promise<HostKey> {
  await commands.run('ssh-keygen', ['-q', '-t', 'ed25519', '-N', '', '-C', '', '-f', file]);
  return readHostKey(await readFile(`${file}.pub`, 'utf8'));
}

/** Reads a line of a public key file. */
export function readHostKey(line: string): HostKey {
  const [type, key] = line.trim().split(/\s+/) as [string, string];
  const digest = createHash('sha256').update(Buffer.from(key, 'base64')).digest('base64');
  return { type, key, fingerprint: `SHA256:${digest.replace(/=+$/, '')}` };
}
