import { open } from 'node:fs/promises';
import type { Readable } from 'node:stream';
import type { Commands } from '../commands.js';

/** The archive is none that can be unpacked, or may not be; the message completes "the archive of the recipe …". */
export class BadArchive extends Error {
  constructor(why: string, options?: ErrorOptions) {
    super(why, options);
    this.name = 'BadArchive';
  }
}

/** What the first bytes of a compressed file are, and the command that writes its content to standard output. */
const COMPRESSIONS: readonly { magic: Buffer; command: string; args: readonly string[] }[] = [
  { magic: Buffer.from('1f8b', 'hex'), command: 'gzip', args: ['-dc'] },
  { magic: Buffer.from('fd377a585a00', 'hex'), command: 'xz', args: ['-dc', '--memlimit-decompress=1GiB'] },
  { magic: Buffer.from('28b52ffd', 'hex'), command: 'zstd', args: ['-dcq', '--memory=1024MB'] },
];

/** Where a tar header says `ustar`. */
const TAR_MAGIC = { offset: 257, text: 'ustar' };

/**
 * The tar archive in a file, by what the file is and not by its name: gzip, xz, zstd, or no compression at all.
 * @throws BadArchive for anything else; the stream fails with CommandFailed where the content is damaged
 */
export async function openArchive(file: string, commands: Commands): Promise<Readable> {
  const start = await readStart(file);
  const compression = COMPRESSIONS.find(({ magic }) => start.subarray(0, magic.length).equals(magic));
  if (compression) return commands.read(compression.command, [...compression.args, '--', file]);
  const { offset, text } = TAR_MAGIC;
  if (start.toString('latin1', offset, offset + text.length) !== text)
    throw new BadArchive('is no tar archive, neither plain nor compressed with gzip, xz or zstd');
  return commands.read('cat', ['--', file]);
}

async function readStart(file: string): Promise<Buffer> {
  const handle = await open(file, 'r');
  try {
    const { buffer, bytesRead } = await handle.read(Buffer.alloc(512), 0, 512, 0);
    return buffer.subarray(0, bytesRead);
  } finally {
    await handle.close();
  }
}
