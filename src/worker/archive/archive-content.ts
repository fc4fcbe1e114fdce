import { open } from 'node:fs/promises';
import type { Readable } from 'node:stream';
import type { Commands } from '../commands.js';
import { BadArchive } from './bad-archive.js';
import { BLOCK, isHeader } from './tar-header.js';

/** What the first bytes of a compressed file are, and the command that writes its content to standard output. */
const COMPRESSIONS: readonly { magic: Buffer; command: string; args: readonly string[] }[] = [
  { magic: Buffer.from('1f8b', 'hex'), command: 'gzip', args: ['-dc'] },
  { magic: Buffer.from('fd377a585a00', 'hex'), command: 'xz', args: ['-dc', '--memlimit-decompress=1GiB'] },
  { magic: Buffer.from('28b52ffd', 'hex'), command: 'zstd', args: ['-dcq', '--memory=1024MB'] },
];

/** How a file is compressed that may hold a tar archive; null where it is none. */
type Compression = (typeof COMPRESSIONS)[number] | 'none' | null;

/**
 * The tar archive in a file, by what the file is and not by its name: gzip, xz, zstd, or no compression at all.
 * @throws BadArchive for anything else; the stream fails with CommandFailed where the content is damaged
 */
export async function openArchive(file: string, commands: Commands): Promise<Readable> {
  const compression = compressionOf(await readStart(file));
  if (!compression) throw new BadArchive('is no tar archive, neither plain nor compressed with gzip, xz or zstd');
  if (compression === 'none') return commands.read('cat', ['--', file]);
  return commands.read(compression.command, [...compression.args, '--', file]);
}

/** Whether a file looks as `openArchive` takes it: what is compressed may turn out to be something else. */
export async function mayBeArchive(file: string): Promise<boolean> {
  return compressionOf(await readStart(file)) !== null;
}

function compressionOf(start: Buffer): Compression {
  const compression = COMPRESSIONS.find(({ magic }) => start.subarray(0, magic.length).equals(magic));
  if (compression) return compression;
  return isHeader(start) ? 'none' : null;
}

async function readStart(file: string): Promise<Buffer> {
  const handle = await open(file, 'r');
  try {
    const { buffer, bytesRead } = await handle.read(Buffer.alloc(BLOCK), 0, BLOCK, 0);
    return buffer.subarray(0, bytesRead);
  } finally {
    await handle.close();
  }
}
