import { createHash } from 'node:crypto';
import { rmSync, statSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { canMount, Lab } from '../support/squashfs-lab.js';
import { content } from './edits.js';

const GENERATIONS = Number(process.env['SQUASHFS_GENERATIONS'] ?? 100);
const FILES = 120;

/** A number below `limit` that looks random, the same for the same words. */
function pick(limit: number, ...words: (string | number)[]): number {
  return createHash('sha256').update(words.join(' ')).digest().readUInt32LE(0) % limit;
}

/** Rewrites some files with others of other sizes, and removes one that comes back later. */
function change(root: string, generation: number): void {
  for (let number = 0; number < 6; number++) {
    const file = path.join(root, `file-${pick(FILES, generation, number)}`);
    // Most are a few KB, as in a real root; some have blocks of their own.
    const size = pick(number === 0 ? 400_000 : 6000, 'size', generation, number);
    writeFileSync(file, content(pick(1000, 'seed', generation, number), size));
  }
  rmSync(path.join(root, `file-${pick(FILES, generation, 'removed')}`), { force: true });
}

function median(numbers: number[]): number {
  return numbers.toSorted((a, b) => a - b)[Math.floor(numbers.length / 2)]!;
}

(canMount() ? describe : describe.skip)('an image of an image of an image', () => {
  let lab: Lab;
  beforeAll(() => {
    lab = new Lab();
  });
  afterAll(() => lab.stop());

  it(`is as small as one that is packed anew, and made as fast, after ${GENERATIONS} generations`, async () => {
    const root = lab.empty('root');
    for (let number = 0; number < FILES; number++)
      writeFileSync(path.join(root, `file-${number}`), content(number, pick(20_000, 'first', number)));
    lab.pack('root', 'source', '-comp zstd -Xcompression-level 3');
    const times: number[] = [];
    for (let generation = 1; generation <= GENERATIONS; generation++) {
      await lab.withOverlay('source', async (overlay) => {
        change(overlay.merged, generation);
        const before = process.cpuUsage();
        await lab.delta('source', overlay, 'delta', { level: 3 });
        // Of all threads: other work on the machine changes little of it.
        const { user, system } = process.cpuUsage(before);
        times.push((user + system) / 1000);
        if (generation === GENERATIONS) lab.pack('overlay/merged', 'full', '-comp zstd -Xcompression-level 3');
      });
      if (generation < GENERATIONS) lab.sh('mv delta source');
    }
    expect(lab.differences('full', 'delta')).toEqual([]);
    expect(statSync(lab.at('delta')).size).toBeLessThan(statSync(lab.at('full')).size * 1.1);
    const quarter = Math.ceil(times.length / 4);
    expect(median(times.slice(-quarter))).toBeLessThan(median(times.slice(0, quarter)) * 1.5 + 20);
  }, 600_000);
});
