import { readFileSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import type { Compression } from '../../src/protocol/job-spec.js';
import { apply, edit, type Edit } from './edits.js';
import { canMount, Lab } from '../support/squashfs-lab.js';
import { ODD_TREE } from './odd-tree.js';

const CASES = Number(process.env['SQUASHFS_CASES'] ?? 15);
/** The same cases in every run, unless somebody looks for others. */
const SEED = Number(process.env['SQUASHFS_SEED'] ?? 20_261_124);
const COMPRESSIONS: Compression[] = ['gzip', 'zstd', 'xz', 'lz4', 'lzo'];
const LEVELS: Partial<Record<Compression, (number | null)[]>> = { gzip: [null, 1, 6, 9], zstd: [null, 3, 15] };

const target = fc.constantFrom(...COMPRESSIONS).chain((compression) =>
  fc.record({
    compression: fc.constant(compression),
    level: fc.constantFrom(...(LEVELS[compression] ?? [null])),
    blockSize: fc.constantFrom(4096, 65_536, 131_072, 1 << 20),
  }),
);

/** Options of mksquashfs that say the same. */
function optionsOf({
  compression,
  level,
  blockSize,
}: {
  compression: string;
  level: number | null;
  blockSize: number;
}) {
  return `-comp ${compression} -b ${blockSize} ${level === null ? '' : `-Xcompression-level ${level}`}`;
}

(canMount() ? describe : describe.skip)('packing all of a tree', () => {
  let lab: Lab;
  beforeAll(() => {
    lab = new Lab();
  });
  afterAll(() => lab.stop());

  it('gives what mksquashfs makes of any tree, the same bytes each time', async () => {
    const trees = fc.array(edit, { minLength: 20, maxLength: 100 });
    await fc.assert(
      fc.asyncProperty(target, trees, async (packing, tree: Edit[]) => {
        const root = lab.empty('root');
        tree.forEach((change) => apply(root, change));
        lab.pack('root', 'expected', optionsOf(packing));
        await lab.full('root', 'full', packing);
        await lab.full('root', 'again', packing, 1);
        expect(lab.differences('expected', 'full')).toEqual([]);
        expect(readFileSync(lab.at('full')).equals(readFileSync(lab.at('again')))).toBe(true);
        // squashfs-tools-ng, which is a reader of its own, knows no lzo.
        if (packing.compression !== 'lzo') lab.sh('sqfsdiff --timestamps --old expected --new full');
      }),
      { seed: SEED, numRuns: CASES, endOnFailure: process.env['SQUASHFS_SHRINK'] === undefined },
    );
  }, 3_600_000);

  it.each(COMPRESSIONS)(
    'keeps what is easily lost, in an image that tells its compression as mksquashfs does: %s',
    async (compression) => {
      lab.sh(`rm -rf root; mkdir root; cd root; ${ODD_TREE}`);
      lab.pack('root', 'expected', `-comp ${compression}`);
      const { droppedXattrs } = await lab.full('root', 'full', { compression });
      expect(lab.differences('expected', 'full')).toEqual([]);
      const list = (image: string) => lab.sh(`unsquashfs -lls ${image}`).replaceAll(image, '');
      expect(list('full')).toBe(list('expected'));
      // The ACL of a file.
      expect(droppedXattrs).toBe(1);
      const says = (image: string) =>
        lab
          .sh(`unsquashfs -stat ${image}`)
          .split('\n')
          .filter((line) =>
            /^(Compression|\s|Block size|.*compressed|.*duplicates|.*exportable|Number of inodes)/i.test(line),
          );
      expect(says('full')).toEqual(says('expected'));
    },
    120_000,
  );

  it('stores contents once that are equal, whatever their names, times and holes', async () => {
    lab.sh(`rm -rf root; mkdir root; cd root; head -c 300000 /dev/urandom > large; cp large copy; head -c 3000 /dev/urandom > a; cp a b
      truncate -s 500000 sparse; dd if=large of=sparse bs=1 seek=200000 count=1000 conv=notrunc status=none; cp --sparse=never sparse full`);
    const { newFiles, newBytes } = await lab.full('root', 'full');
    lab.pack('root', 'expected', '');
    expect(lab.differences('expected', 'full')).toEqual([]);
    expect(newFiles).toBe(3);
    expect(newBytes).toBeLessThan(320_000);
  }, 60_000);

  it('ends where a file cannot be read, and does not pack an empty one in its place', async () => {
    lab.sh(`rm -rf root; mkdir root; seq 200000 > root/file; mksquashfs root broken -noappend -quiet -no-progress >/dev/null
      dd if=/dev/zero of=broken bs=1 seek=1000 count=100 conv=notrunc status=none; mkdir -p mounted
      mount -t squashfs -o ro,loop broken mounted`);
    await expect(lab.full('mounted', 'full')).rejects.toThrow(/EIO/);
    lab.sh('umount mounted');
  }, 60_000);
});
