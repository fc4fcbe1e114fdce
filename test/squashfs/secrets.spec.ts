import { createHash, randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { blockLength } from '../../src/worker/squashfs/inode.js';
import { METADATA_SIZE } from '../../src/worker/squashfs/metadata-reader.js';
import { SquashfsImage } from '../../src/worker/squashfs/squashfs-image.js';
import { canMount, Lab } from '../support/squashfs-lab.js';

/** A stretch of the area of data blocks. */
interface Stretch {
  start: number;
  end: number;
}

/**
 * Everything that can be unpacked from an image, and the stretches of its data area that nothing refers to. Blocks of metadata are looked for at
 * every byte behind the data, so that none can hide.
 */
async function unpackAll(file: string): Promise<{ contents: Buffer[]; gaps: Stretch[] }> {
  const image = SquashfsImage.open(file);
  try {
    const contents: Buffer[] = [];
    const seen = new Map<number, Stretch>();
    const add = async (start: number, word: number) => {
      if (word === 0 || seen.has(start)) return;
      seen.set(start, { start, end: start + blockLength(word) });
      contents.push(await image.block(start, word));
    };
    for (let index = 0; index < image.superblock.fragments; index++) {
      const { start, word } = image.fragment(index);
      await add(start, word);
    }
    for (const inode of image.inodes()) {
      if (inode.kind !== 'file') continue;
      let position = inode.start;
      for (let at = 0; at < inode.blocks.length; at += 4) {
        const word = inode.blocks.readUInt32LE(at);
        await add(position, word);
        position += blockLength(word);
      }
    }
    const bytes = readFileSync(file);
    contents.push(bytes, ...metadataOf(image, bytes));
    return { contents, gaps: gapsIn([...seen.values()], image.dataStart, image.superblock.inodeTable) };
  } finally {
    image.close();
  }
}

function metadataOf({ codec, superblock }: SquashfsImage, bytes: Buffer): Buffer[] {
  const found: Buffer[] = [];
  for (let position = superblock.inodeTable; position + 2 < bytes.length; position++) {
    const length = bytes.readUInt16LE(position) & 0x7fff;
    if (length === 0 || length > METADATA_SIZE || position + 2 + length > bytes.length) continue;
    try {
      found.push(codec.decompress(bytes.subarray(position + 2, position + 2 + length), METADATA_SIZE));
    } catch {
      // No block of metadata begins here.
    }
  }
  return found;
}

function gapsIn(stretches: Stretch[], start: number, end: number): Stretch[] {
  const gaps: Stretch[] = [];
  let position = start;
  for (const stretch of stretches.toSorted((a, b) => a.start - b.start)) {
    if (stretch.start > position) gaps.push({ start: position, end: stretch.start });
    position = Math.max(position, stretch.end);
  }
  return position < end ? [...gaps, { start: position, end }] : gaps;
}

/** Ways to take something out of an image: what makes it, and what takes it out. `SECRET` stands for a text that nobody may find. */
const WAYS: Record<string, { make: string; take: string }> = {
  'a small file that is removed': { make: 'echo SECRET > small', take: 'rm small' },
  'a large file that is removed': { make: '(pad 300000; echo SECRET; pad 50000) > large', take: 'rm large' },
  'a file that is replaced by mv': { make: 'echo SECRET > moved', take: 'echo new > n; mv n moved' },
  'a file that is written anew': { make: '(pad 200000; echo SECRET) > written', take: 'pad 200000 > written' },
  'a file that is cut within its first block': { make: '(echo head; echo SECRET) > cut', take: 'truncate -s 5 cut' },
  'a file that is cut to a fragment': {
    make: '(pad 1000; echo SECRET; pad 400000; echo SECRET) > shrunk',
    take: 'truncate -s 900 shrunk',
  },
  'the end of a file that is cut off': { make: '(pad 262144; echo SECRET) > tail', take: 'truncate -s 262144 tail' },
  'bytes that are overwritten in place': {
    make: '(pad 140000; echo SECRET; pad 9) > poked',
    take: 'head -c 40 /dev/zero | dd of=poked bs=1 seek=140000 conv=notrunc status=none',
  },
  'a directory that is removed': { make: 'mkdir d; echo SECRET > d/f', take: 'rm -r d' },
  'a directory that is made anew': { make: 'mkdir e; echo SECRET > e/f', take: 'rm -r e; mkdir e' },
  'all names of a file with several': { make: 'echo SECRET > l1; ln l1 l2', take: 'rm l1 l2' },
  'a file with several names, written by one': { make: 'echo SECRET > m1; ln m1 m2', take: 'echo new > m2' },
  'the name of a file': { make: ': > SECRET', take: 'rm SECRET' },
  'the target of a link': { make: 'ln -s SECRET link', take: 'rm link' },
  'the value of an attribute': {
    make: ': > x; setfattr -n user.a -v SECRET x',
    take: 'setfattr -n user.a -v other x',
  },
};

/** Neighbours, so that blocks of fragments hold what stays beside what goes. */
const NEIGHBOURS = 'for i in $(seq 40); do pad $((i * 37)) $i > "keep-$i"; done; pad 500000 9 > keep';
/** `pad BYTES SEED` prints text that is not all the same. */
const PAD = 'pad() { yes "line ${2:-0} $1" | nl | head -c "$1"; }';

(canMount() ? describe : describe.skip)('what was taken out of an image', () => {
  let lab: Lab;
  const secrets = new Map(
    Object.keys(WAYS).map((way) => [way, createHash('sha256').update(randomBytes(32)).digest('hex')]),
  );

  beforeAll(() => {
    lab = new Lab();
    const makes = Object.entries(WAYS).map(([way, { make }]) => make.replaceAll('SECRET', secrets.get(way)!));
    lab.sh(`${PAD}; mkdir root; cd root; ${NEIGHBOURS}; ${makes.join('\n')}`);
  });
  afterAll(() => lab.stop());

  const findIn = (contents: Buffer[]) =>
    [...secrets].filter(([, secret]) => contents.some((content) => content.includes(secret))).map(([way]) => way);

  it.each([
    '-comp gzip',
    '-comp gzip -always-use-fragments',
    '-comp gzip -no-fragments',
    '-comp zstd -always-use-fragments',
    '-comp xz -always-use-fragments',
    '-comp lz4',
    '-comp lzo -b 4K',
    '-noI -noD -noF -noX -always-use-fragments',
  ])(
    'is nowhere in the new one: %s',
    async (options) => {
      lab.pack('root', 'source', options);
      // The search finds all of it where it is.
      expect(findIn((await unpackAll(lab.at('source'))).contents)).toEqual(Object.keys(WAYS));
      const takes = Object.entries(WAYS).map(([way, { take }]) => take.replaceAll('SECRET', secrets.get(way)!));
      const { reusedBytes } = await lab.withOverlay('source', (overlay) => {
        lab.sh(`${PAD}; cd overlay/merged; ${takes.join('\n')}`);
        return lab.delta('source', overlay, 'delta');
      });
      const { contents, gaps } = await unpackAll(lab.at('delta'));
      expect(findIn(contents)).toEqual([]);
      expect(gaps).toEqual([]);
      expect(reusedBytes).toBeGreaterThan(0);
    },
    60_000,
  );
});
