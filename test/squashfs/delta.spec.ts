import { readFileSync, statSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import { apply, edit, type Edit } from './edits.js';
import { canMount, Lab } from '../support/squashfs-lab.js';
import { readSuperblock } from '../../src/worker/squashfs/superblock.js';

const CASES = Number(process.env['SQUASHFS_CASES'] ?? 15);
/** The same cases in every run, unless somebody looks for others. */
const SEED = Number(process.env['SQUASHFS_SEED'] ?? 20_261_123);

/** Packings of the source. */
const packing = fc.record({
  compression: fc.constantFrom('gzip', 'zstd', 'xz', 'lz4', 'lzo', 'lz4 -Xhc', 'gzip -Xcompression-level 1'),
  blockSize: fc.constantFrom('4K', '64K', '128K', '1M'),
  option: fc.constantFrom(
    '',
    '',
    '-always-use-fragments',
    '-no-fragments',
    '-no-duplicates',
    '-noI -noX',
    '-noD',
    '-no-exports',
  ),
});

(canMount() ? describe : describe.skip)('packing what changed', () => {
  let lab: Lab;
  beforeAll(() => {
    lab = new Lab();
  });
  afterAll(() => lab.stop());

  /** Packs a tree, edits it above an overlay, and packs that by both packers. */
  async function packBoth(options: string, tree: Edit[], edits: Edit[]): Promise<void> {
    const root = lab.empty('root');
    tree.forEach((change) => apply(root, change));
    lab.pack('root', 'source', options);
    await lab.withOverlay('source', async (overlay) => {
      edits.forEach((change) => apply(overlay.merged, change));
      await lab.delta('source', overlay, 'delta');
      await lab.delta('source', overlay, 'again', { processors: 1 });
      lab.pack('overlay/merged', 'full', options);
    });
  }

  it('gives what mksquashfs makes of any tree after any edits, the same bytes each time', async () => {
    const trees = fc.array(edit, { minLength: 20, maxLength: 80 });
    const edits = fc.array(edit, { maxLength: 30 });
    await fc.assert(
      fc.asyncProperty(packing, trees, edits, async ({ compression, blockSize, option }, tree, changes) => {
        await packBoth(`-comp ${compression} -b ${blockSize} ${option}`, tree, changes);
        expect(lab.differences('full', 'delta')).toEqual([]);
        expect(readFileSync(lab.at('delta')).equals(readFileSync(lab.at('again')))).toBe(true);
        lab.sh('unsquashfs -quiet -no-progress -dest out delta >/dev/null; rm -rf out');
        // squashfs-tools-ng, which is a reader of its own, knows no lzo.
        if (compression !== 'lzo') lab.sh('sqfsdiff --timestamps --old full --new delta');
      }),
      { seed: SEED, numRuns: CASES, endOnFailure: process.env['SQUASHFS_SHRINK'] === undefined },
    );
  }, 3_600_000);

  it('takes an end of zeros for a hole, as mksquashfs does', async () => {
    const tree: Edit[] = [{ do: 'write', path: 'a', seed: 1, size: 20_000 }];
    const edits: Edit[] = [
      { do: 'write', path: 'b', seed: 2, size: 100 },
      { do: 'truncate', path: 'b', size: 231_462 },
      { do: 'sparse', path: 'c', size: 50_001 },
      { do: 'write', path: 'd', seed: 3, size: 0 },
      { do: 'truncate', path: 'd', size: 100 },
    ];
    await packBoth('-comp gzip -b 4K -always-use-fragments', tree, edits);
    expect(lab.differences('full', 'delta')).toEqual([]);
  }, 60_000);

  it('takes a directory for the one that it was, whatever stood in its place', async () => {
    lab.sh(`rm -rf root; mkdir -p root/a/sub root/b root/c; cd root; for d in a b c; do for f in 1 2 3; do echo $d $f > $d/file-$f; done; done
      echo deep > a/sub/deep; ln a/file-1 linked; ln -f linked b/file-1; ln -f linked c/file-1`);
    lab.pack('root', 'source', '-comp gzip');
    await lab.withOverlay('source', async (overlay) => {
      // Names and links tell nothing apart here, only the directories themselves.
      lab.sh(
        'cd overlay/merged; mv a x; mv b a; mv x b; rm -r c; mkdir c; cp b/file-2 b/file-3 c; mv b/sub c/sub; rm b/file-3',
      );
      await lab.delta('source', overlay, 'delta');
      lab.pack('overlay/merged', 'full', '-comp gzip');
    });
    expect(lab.differences('full', 'delta')).toEqual([]);
  }, 60_000);

  describe.each(['gzip', 'zstd', 'xz', 'lz4', 'lzo', 'gzip -noD'])('of a large file: %s', (compression) => {
    /** Blocks of 128 KiB that compress to about half of it. */
    const BLOCKS = 40;
    const large = (seed: string) => `seq -f '${seed} %.0f' 10000000 | head -c $((${BLOCKS} << 17))`;
    const options = `-comp ${compression} ${compression === 'zstd' ? '-Xcompression-level 3' : ''}`;

    it('compresses only the blocks that are others', async () => {
      lab.sh(
        `rm -rf root; mkdir root; cd root; ${large('package')} > database; ${large('other')} > log; head -c 300000 log > replaced`,
      );
      lab.pack('root', 'source', options);
      const report = await lab.withOverlay('source', async (overlay) => {
        // As a database of packages changes; as a log grows; as a file is replaced by another of the same name.
        lab.sh(`cd overlay/merged; printf changed | dd of=database bs=1 seek=$((7 << 17)) conv=notrunc status=none; head -c 200000 log >> log
          head -c 290000 replaced > new; rm replaced; mv new replaced`);
        lab.pack('overlay/merged', 'full', options);
        await lab.delta('source', overlay, 'again', { processors: 1, level: 3 });
        return lab.delta('source', overlay, 'delta', { level: 3 });
      });
      expect(lab.differences('full', 'delta')).toEqual([]);
      expect(readFileSync(lab.at('delta')).equals(readFileSync(lab.at('again')))).toBe(true);
      const size = statSync(lab.at('source')).size;
      // One block of the database, two of the log, and the end of the one that was replaced: of more than 80.
      expect(report.newBytes).toBeLessThan(size / 10);
      expect(report.newBytes + report.reusedBytes).toBeLessThanOrEqual(report.bytes);
      expect(report.reusedBytes).toBeGreaterThan(size * 0.85);
    }, 120_000);
  });

  it('does without blocks that are damaged, where nobody needs them any more', async () => {
    lab.sh(
      'rm -rf root; mkdir root; cd root; seq 200000 > damaged; echo some > small; seq 100000 | head -c 131072 > kept',
    );
    lab.pack('root', 'source', '-comp gzip');
    await lab.withOverlay('source', async (overlay) => {
      // Of the same sizes, so that they are compared with what they replace.
      lab.sh('cd overlay/merged; seq 200000 | tac > damaged; echo same > small');
      lab.pack('overlay/merged', 'full', '-comp gzip');
      // The blocks of the first file stand behind the superblock, that of fragments stands last.
      const { inodeTable } = await readSuperblock(lab.at('source'));
      for (const position of [200, inodeTable - 5])
        lab.sh(`head -c 4 /dev/zero | tr '\\0' '\\377' | dd of=source bs=1 seek=${position} conv=notrunc status=none`);
      await lab.delta('source', overlay, 'delta');
    });
    expect(lab.differences('full', 'delta')).toEqual([]);
  }, 60_000);

  it('copies also to a file system to which the kernel does not', async () => {
    lab.sh(
      'rm -rf root; mkdir root tmpfs; cd root; seq 2000000 > kept; seq 1000000 > removed; seq 3000000 > kept-too; seq 9 > small',
    );
    lab.pack('root', 'source', '-comp gzip');
    lab.sh('mount -t tmpfs none tmpfs');
    try {
      await lab.withOverlay('source', async (overlay) => {
        lab.sh('cd overlay/merged; rm removed; echo new > small');
        const { reusedBytes } = await lab.delta('source', overlay, 'tmpfs/delta');
        expect(reusedBytes).toBeGreaterThan(4 << 20);
        lab.pack('overlay/merged', 'full', '-comp gzip');
      });
      expect(lab.differences('full', 'tmpfs/delta')).toEqual([]);
    } finally {
      lab.sh('umount tmpfs');
    }
  }, 60_000);
});
