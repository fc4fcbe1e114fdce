import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { readSuperblock } from './superblock.js';

let directory: string;
let image: string;

beforeEach(() => {
  directory = mkdtempSync(path.join(tmpdir(), 'ims-superblock-'));
  image = path.join(directory, 'image');
  writeFileSync(path.join(directory, 'file'), Buffer.alloc(100_000, 'squash'));
});

afterEach(() => rmSync(directory, { recursive: true }));

function pack(...options: string[]): void {
  execFileSync('mksquashfs', [path.join(directory, 'file'), image, '-noappend', '-quiet', ...options], {
    stdio: 'ignore',
  });
}

it.each(['gzip', 'zstd', 'xz', 'lz4', 'lzo'])('tells the compression %s, and the block size', async (compression) => {
  pack('-comp', compression, '-b', '256K');
  expect(await readSuperblock(image)).toMatchObject({ compression, blockSize: 262_144 });
});

it.each([
  ['an empty file', () => writeFileSync(image, ''), 'is not a SquashFS image'],
  ['a short file', () => writeFileSync(image, 'hsqs'), 'is not a SquashFS image'],
  ['a tar file', () => writeFileSync(image, Buffer.alloc(4096, 'ustar')), 'is not a SquashFS image'],
  ['an image that was cut off', () => truncateSync(image, 100), /^is cut off: it has 100 of \d+ bytes$/],
  ['an old version', () => patch(28, 3), 'is a SquashFS image of version 3.0; only version 4 is supported'],
  ['an unknown compression', () => patch(20, 77), 'is compressed by a method that no current tool packs with'],
])('refuses %s', async (_what, make, message) => {
  pack();
  make();
  await expect(readSuperblock(image)).rejects.toThrow(message);
});

/** Changes a 16-bit field. */
function patch(offset: number, value: number): void {
  const bytes = readFileSync(image);
  bytes.writeUInt16LE(value, offset);
  writeFileSync(image, bytes);
}
