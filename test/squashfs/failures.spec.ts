import { execFile } from 'node:child_process';
import path from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import type { Overlay } from '../../src/worker/squashfs/merged-tree.js';
import { canMount, Lab } from '../support/squashfs-lab.js';

const root = path.resolve(import.meta.dirname, '../..');

(canMount() ? describe : describe.skip)('packing that cannot end well', () => {
  let lab: Lab;
  beforeAll(() => {
    lab = new Lab();
    lab.sh('mkdir root tmpfs; cd root; head -c 300000000 /dev/urandom > large; echo a > small');
    lab.pack('root', 'source', '-comp gzip -Xcompression-level 1');
  });
  afterAll(() => lab.stop());

  /** Packs in a process of its own; what became of it, or how the process ended. */
  async function packApart(overlay: Overlay, output: string, abortAfter = 0): Promise<string> {
    const program = ['--no-warnings', '--import', './test/support/run-typescript.mjs', 'test/squashfs/pack-apart.ts'];
    const { merged, upper, index } = overlay;
    const args = [lab.at('source'), merged, upper, index, lab.at(output), String(abortAfter)];
    const { stdout } = await promisify(execFile)(process.execPath, [...program, ...args], { cwd: root });
    return stdout;
  }

  it.each([
    ['while the source is copied', 'echo x > small; head -c 9000000 /dev/urandom > new', '100m'],
    ['while contents are compressed', 'rm large; head -c 9000000 /dev/urandom > new', '4m'],
    ['while the metadata are written', 'rm large; for i in $(seq 20000); do : > $i; done', '40k'],
  ])(
    'tells of a disk that is full: %s',
    async (_when, changes, size) => {
      lab.sh(`mount -t tmpfs -o size=${size} none tmpfs`);
      try {
        await lab.withOverlay('source', async (overlay) => {
          lab.sh(`cd overlay/merged; ${changes}`);
          expect(await packApart(overlay, 'tmpfs/image')).toBe('ENOSPC');
          await expect(lab.delta('source', overlay, 'tmpfs/image')).rejects.toMatchObject({ code: 'ENOSPC' });
          await expect(lab.full('overlay/merged', 'tmpfs/full')).rejects.toMatchObject({ code: 'ENOSPC' });
        });
      } finally {
        lab.sh('umount tmpfs');
      }
    },
    120_000,
  );

  it('tells why it was ended, whatever it does just then', async () => {
    await lab.withOverlay('source', async (overlay) => {
      lab.sh('cd overlay/merged; echo x > small; head -c 20000000 /dev/urandom > random; seq 5000000 > text');
      const outcomes: string[] = [];
      for (const milliseconds of [20, 100, 200, 300, 450, 600])
        outcomes.push(await packApart(overlay, 'image', milliseconds));
      expect(new Set([...outcomes, 'packed'])).toEqual(new Set(['the store is away', 'packed']));
      expect(outcomes).toContain('the store is away');
    });
  }, 120_000);
});
