import { execFileSync } from 'node:child_process';
import { linkSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { BadSquashfs } from '../../src/worker/squashfs/bad-squashfs.js';
import { packTree } from '../../src/worker/squashfs/delta.js';
import { ImageTree } from '../../src/worker/squashfs/image-tree.js';
import { SquashfsImage } from '../../src/worker/squashfs/squashfs-image.js';
import { NotSquashfs, SUPERBLOCK_SIZE } from '../../src/worker/squashfs/superblock.js';
import { SquashfsLimit } from '../../src/worker/squashfs/tree-writer.js';
import { content } from './edits.js';

const CASES = Number(process.env['SQUASHFS_HOSTILE_CASES'] ?? 700);
/** Milliseconds that no image of this size may take. */
const TIME_LIMIT = 5000;
/** Bytes that the process may grow by, whatever an image says. */
const MEMORY_LIMIT = 600 * 1024 * 1024;

let directory: string;
const at = (name: string) => path.join(directory, name);

/** Numbers that look random, the same for the same seed (xorshift). */
function* numbers(seed: number): Generator<number, never, void> {
  for (let state = seed || 1; ;) {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    yield state >>> 0;
  }
}

function makeTree(root: string): void {
  mkdirSync(path.join(root, 'deep/er/est'), { recursive: true });
  for (let index = 0; index < 300; index++)
    writeFileSync(path.join(root, `file with a rather long name ${index}`), content(index, index * 7));
  writeFileSync(path.join(root, 'deep/large'), content(1, 50_000));
  writeFileSync(path.join(root, 'deep/er/hole'), Buffer.concat([Buffer.alloc(20_000), content(2, 100)]));
  linkSync(path.join(root, 'deep/large'), path.join(root, 'deep/er/linked'));
  symlinkSync('../large', path.join(root, 'deep/er/link'));
  execFileSync('mkfifo', [path.join(root, 'deep/fifo')]);
  execFileSync('setfattr', ['-n', 'user.a', '-v', 'value', path.join(root, 'deep/large')]);
  execFileSync('setfattr', ['-n', 'user.b', '-v', 'other', path.join(root, 'deep')]);
}

beforeAll(() => {
  directory = mkdtempSync(path.join(tmpdir(), 'ims-hostile-'));
  makeTree(at('root'));
});
afterAll(() => rmSync(directory, { recursive: true }));

function pack(...options: string[]): Buffer {
  execFileSync(
    'mksquashfs',
    [at('root'), at('source'), '-noappend', '-quiet', '-no-progress', '-b', '4K', ...options],
    {
      stdio: 'ignore',
    },
  );
  return readFileSync(at('source'));
}

/** Reads all of an image and packs it anew. */
async function repack(image: Buffer): Promise<void> {
  writeFileSync(at('source'), image);
  await packTree(
    {
      source: at('source'),
      output: at('output'),
      level: 1,
      processors: 1,
      memory: 16 << 20,
      signal: new AbortController().signal,
    },
    (source) => ({ root: new ImageTree(source).root(), droppedXattrs: 0 }),
  );
}

/** Reads every block that files of an image refer to. */
async function readBlocks(): Promise<void> {
  const image = SquashfsImage.open(at('source'));
  try {
    for (const inode of image.inodes()) {
      if (inode.kind !== 'file') continue;
      for (let position = inode.start, block = 0; block < inode.blocks.length; block += 4) {
        const word = inode.blocks.readUInt32LE(block);
        if (word !== 0) await image.block(position, word);
        position += word & 0xff_ffff;
      }
      if (inode.fragment) image.fragment(inode.fragment.index);
    }
    for (const { start, word } of image.fragments) await image.block(start, word);
  } finally {
    image.close();
  }
}

/** What became of an image: null where nothing is wrong with it. */
async function verdict(image: Buffer): Promise<unknown> {
  try {
    await repack(image);
    await readBlocks();
    return null;
  } catch (error) {
    return error;
  }
}

function expectClear(error: unknown): void {
  if (error instanceof BadSquashfs || error instanceof NotSquashfs || error instanceof SquashfsLimit) return;
  throw error;
}

/** A few bytes changed: one flipped bit, a number that is as large as can be, a stretch of noise; most often in tables. */
function damage(image: Buffer, random: Iterator<number, never>): Buffer {
  const next = (below: number) => random.next().value % below;
  const result = Buffer.from(image);
  const tables = Number(image.readBigUInt64LE(64));
  const spot = [() => next(SUPERBLOCK_SIZE), () => next(image.length), () => tables + next(image.length - tables)][
    next(3)
  ]!();
  const kind = next(5);
  if (kind === 0) result[spot] = result[spot]! ^ (1 << next(8));
  if (kind === 1) result.fill(0xff, spot, spot + 1 + next(8));
  if (kind === 2) result.fill(0, spot, spot + 1 + next(8));
  if (kind === 3) for (let byte = spot; byte < Math.min(spot + 16, result.length); byte++) result[byte] = next(256);
  return kind === 4 ? result.subarray(0, spot) : result;
}

const PLAIN = ['-noI', '-noD', '-noF', '-noX', '-noId'];

describe.each([
  ['gzip', ['-comp', 'gzip']],
  ['zstd', ['-comp', 'zstd', '-Xcompression-level', '1']],
  ['xz', ['-comp', 'xz']],
  ['lz4', ['-comp', 'lz4']],
  ['lzo', ['-comp', 'lzo']],
  ['not compressed', [...PLAIN]],
  ['not compressed, all ends in fragments', [...PLAIN, '-always-use-fragments']],
])('an image that is damaged on purpose: %s', (_name, options) => {
  it('is packed anew as long as nothing is wrong with it', async () => {
    expect(await verdict(pack(...options))).toBeNull();
    const list = (image: string) => execFileSync('unsquashfs', ['-lls', at(image)]).toString();
    expect(list('output')).toBe(list('source'));
  });

  it('ends in a clear error, in little time and memory', async () => {
    const image = pack(...options);
    const random = numbers(20_261_123);
    const before = process.memoryUsage().rss;
    let refused = 0;
    for (let number = 0; number < CASES / 7; number++) {
      const started = performance.now();
      const error = await verdict(damage(image, random));
      if (error) expectClear(error);
      refused += error ? 1 : 0;
      expect(performance.now() - started).toBeLessThan(TIME_LIMIT);
      expect(process.memoryUsage().rss - before).toBeLessThan(MEMORY_LIMIT);
    }
    // Where nearly nothing is refused the damage does not reach what is read.
    expect(refused).toBeGreaterThan(CASES / 7 / 4);
  }, 600_000);
});

describe('an image whose tables lie', () => {
  it.each([
    ['counts of inodes', 4],
    ['counts of fragments', 16],
    ['a place of the root', 32],
    ['a place of the id table', 48],
    ['a place of the attribute table', 56],
    ['a place of the inode table', 64],
    ['a place of the directory table', 72],
    ['a place of the fragment table', 80],
    ['a place of the export table', 88],
  ])('is refused: %s', async (_what, offset) => {
    const image = pack();
    image.writeUInt16LE(0x7fff, offset);
    image.writeUInt16LE(0x7fff, offset + 2);
    expect(await verdict(image)).toBeInstanceOf(BadSquashfs);
  });

  it('is refused: a directory that is in itself', async () => {
    const image = pack(...PLAIN);
    const [inodes, listings] = [64, 72].map((offset) => Number(image.readBigUInt64LE(offset)) + 2);
    // `deep/er` lists est, hole, link and linked. The inode of est, which is empty, gets that listing: it then holds itself.
    const header = image.indexOf('est', listings) - 8 - 12;
    const est = inodes! + image.readUInt32LE(header + 4) + image.readUInt16LE(header + 12);
    image.writeUInt32LE(0, est + 16);
    image.writeUInt16LE(12 + 4 * 8 + 'est hole link linked'.length - 3 + 3, est + 24);
    image.writeUInt16LE(header - listings!, est + 26);
    await expect(repack(image)).rejects.toThrow('a directory is in itself');
  });
});
