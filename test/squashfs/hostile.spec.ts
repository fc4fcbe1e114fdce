import { execFileSync } from 'node:child_process';
import {
  existsSync,
  linkSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { BadSquashfs } from '../../src/worker/squashfs/bad-squashfs.js';
import { packTree } from '../../src/worker/squashfs/delta.js';
import type { PackableTree } from '../../src/worker/squashfs/disk-tree.js';
import { ImageTree } from '../../src/worker/squashfs/image-tree.js';
import { SquashfsImage } from '../../src/worker/squashfs/squashfs-image.js';
import { NotSquashfs, SUPERBLOCK_SIZE } from '../../src/worker/squashfs/superblock.js';
import { fileNode } from '../../src/worker/squashfs/tree.js';
import { SquashfsLimit } from '../../src/worker/squashfs/tree-writer.js';
import { content } from './edits.js';

const CASES = Number(process.env['SQUASHFS_HOSTILE_CASES'] ?? 10_000);
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

/** The tree of an image, with files that look as if they were files of it, so that they are compared with those. */
function treeOf(source: SquashfsImage): PackableTree {
  const root = new ImageTree(source).root();
  const twins = [...source.inodes()].filter((inode) => inode.kind === 'file').slice(0, 20);
  for (const [index, twin] of twins.entries()) {
    const size = twin.size > 60_000 ? 50_000 : twin.size;
    const name = `new-${index}-${size}`;
    if (!existsSync(at(name))) writeFileSync(at(name), content(index, size));
    const stored = { directory: directory, name, size, allocated: size, twins: [twin], stored: null };
    const node = fileNode({ ...root, mode: 0o644 }, { from: 'file', ...stored });
    root.entries.push({ name: `\u00ff ${String(index).padStart(3, '0')}`, node });
  }
  return { root, droppedXattrs: 0 };
}

/** Reads all of an image and packs it anew, with a few files more. */
async function repack(image: Buffer, tree = treeOf): Promise<void> {
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
    tree,
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
    for (let index = 0; index < image.superblock.fragments; index++) {
      const { start, word } = image.fragment(index);
      await image.block(start, word);
    }
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

/** A few bytes changed: one flipped bit, a number that is as large as can be, a stretch of noise; most often in tables. Or the end is missing. */
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
  return kind === 4 ? cutOff(result, spot, next(2) === 0) : result;
}

/** @param isSilent the image says that it is no longer than that */
function cutOff(image: Buffer, length: number, isSilent: boolean): Buffer {
  if (isSilent && length >= SUPERBLOCK_SIZE) image.writeBigUInt64LE(BigInt(length), 40);
  return image.subarray(0, length);
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
    const image = pack(...options);
    expect(await verdict(image)).toBeNull();
    await repack(image, (source) => ({ root: new ImageTree(source).root(), droppedXattrs: 0 }));
    const list = (name: string) => execFileSync('unsquashfs', ['-lls', at(name)]).toString();
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

  it('is refused: sets of attributes that share what they hold', async () => {
    const image = pack(...PLAIN);
    const table = Number(image.readBigUInt64LE(56));
    const entries = Number(image.readBigUInt64LE(table + 16)) + 2;
    // One set would have as many attributes as the table has bytes.
    image.writeUInt32LE(1 << 20, entries + 8);
    await expect(repack(image)).rejects.toThrow('more extended attributes than its xattr table');
  });

  it('is refused: an index that leads to one block again and again', async () => {
    const image = pack(...PLAIN);
    const size = Number(image.readBigUInt64LE(40));
    const [fragments, entry] = [200_000, Buffer.alloc(8192)];
    const block = Buffer.concat([Buffer.from([0, 0x80 | 0x20]), entry]);
    const index = Buffer.alloc(Math.ceil((fragments * 16) / 8192) * 8);
    for (let byte = 0; byte < index.length; byte += 8) index.writeBigUInt64LE(BigInt(size), byte);
    const bomb = Buffer.concat([image.subarray(0, size), block, index]);
    bomb.writeUInt32LE(fragments, 16);
    bomb.writeUInt32LE(fragments, 4);
    bomb.writeBigUInt64LE(BigInt(size + block.length), 80);
    bomb.writeBigUInt64LE(BigInt(bomb.length), 40);
    const before = process.memoryUsage().rss;
    await expect(repack(bomb)).rejects.toThrow('the index of its fragment table is not in order');
    expect(process.memoryUsage().rss - before).toBeLessThan(100 << 20);
  });

  it('is refused: more fragments than files', async () => {
    const image = pack();
    image.writeUInt32LE(image.readUInt32LE(4) + 1, 16);
    await expect(repack(image)).rejects.toThrow('it has more fragments than files');
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
