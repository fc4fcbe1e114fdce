import { closeSync, mkdirSync, openSync, readFileSync, writeFileSync, writeSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { ImageTree } from '../../src/worker/squashfs/image-tree.js';
import { SquashfsImage } from '../../src/worker/squashfs/squashfs-image.js';
import { encodeSuperblock, FLAG, readSuperblock, SUPERBLOCK_SIZE } from '../../src/worker/squashfs/superblock.js';
import { encodeTables } from '../../src/worker/squashfs/tree-writer.js';
import { canMount, Lab } from '../support/squashfs-lab.js';

(canMount() ? describe : describe.skip)('at the edges of the format', () => {
  let lab: Lab;
  beforeAll(() => {
    lab = new Lab();
  });
  afterAll(() => lab.stop());

  /** Edits an image above an overlay, and packs that from the source, and whole, by both packers. */
  async function edit(script: string, source = 'source'): Promise<void> {
    await lab.withOverlay(source, async (overlay) => {
      lab.sh(`cd overlay/merged; ${script}`);
      lab.pack('overlay/merged', 'expected', '-comp gzip');
      await lab.delta(source, overlay, 'delta');
      await lab.full('overlay/merged', 'full', {}, 2, 'overlay/lower');
    });
  }

  function expectEqual(): void {
    for (const image of ['delta', 'full']) expect(lab.differences('expected', image)).toEqual([]);
  }

  it('packs directories whose listings need indexes: 20,000 names, and names of 255 bytes', async () => {
    lab.sh(`rm -rf root; mkdir -p root/many root/long; cd root/many; seq 20000 | xargs touch
      cd ../long; for i in $(seq 3000); do : > $(printf '%0255d' $i); done`);
    lab.pack('root', 'source', '-comp gzip');
    await edit('echo x > many/zzz; rm many/777; echo y > long/x');
    expectEqual();
    lab.sh('sqfsdiff --timestamps --old expected --new delta; sqfsdiff --timestamps --old expected --new full');
    // Names are found by the indexes, which a walk does not use.
    lab.sh(`mkdir -p A; mount -t squashfs -o ro,loop delta A; trap 'umount A' EXIT
      for i in 1 5000 13333 19999 20000 zzz; do test -e A/many/$i; done; test ! -e A/many/777; test -e A/long/$(printf '%0255d' 1500)`);
  }, 180_000);

  it('packs sockets, and devices with several names', async () => {
    lab.sh(`rm -rf root; mkdir root; cd root; echo x > a; mknod b b 259 1048575; ln b b2
      python3 -c 'import socket
for name in ["sock", "other"]: socket.socket(socket.AF_UNIX).bind(name)'; ln sock sock-link`);
    lab.pack('root', 'source', '-comp gzip');
    await edit('chmod 600 other; echo y > new');
    expectEqual();
  }, 60_000);

  it('reads images of squashfs-tools-ng', async () => {
    lab.sh(`rm -rf root; mkdir -p root/d; cd root; for i in $(seq 500); do echo $i > d/$i; done; seq 300000 > large; ln large linked
      setfattr -n user.a -v b large; truncate -s 3M holes; echo x >> holes; mkfifo fifo; cd ..
      gensquashfs -q -x -D root -c gzip -b 131072 -f source`);
    await edit('echo x > d/7; rm d/9');
    expectEqual();
  }, 60_000);

  it('packs a file of more than 4 GiB', async () => {
    lab.sh(`rm -rf root; mkdir root; cd root; truncate -s 4500M large; echo end >> large; echo small > small
      echo middle | dd of=large bs=1M seek=4200 conv=notrunc status=none`);
    await lab.full('root', 'source', { blockSize: 1 << 20, level: 1 });
    await lab.withOverlay('source', async (overlay) => {
      lab.sh('echo other > overlay/merged/small');
      await lab.delta('source', overlay, 'delta');
    });
    const facts = (directory: string) =>
      lab.sh(
        `stat -c '%s %b' ${directory}/large; tail -c 4 ${directory}/large; dd if=${directory}/large bs=1M skip=4200 count=1 status=none | head -c 6`,
      );
    lab.sh('mkdir -p A; mount -t squashfs -o ro,loop delta A');
    try {
      expect(facts('A')).toMatch(/^4718592004 \d+\nend\nmiddle$/);
    } finally {
      lab.sh('umount A');
    }
  }, 120_000);

  it('packs from blocks that stand behind 4 GiB', async () => {
    lab.sh(`rm -rf root; mkdir root; cd root; seq 300000 > large; seq 200000 > other; for i in $(seq 100); do echo $i > $i; done; ln large linked
      truncate -s 2M holes; echo x >> holes`);
    lab.pack('root', 'source', '-comp gzip');
    moveAway(5 * 2 ** 30);
    expect(lab.differences('source', 'far')).toEqual([]);
    await edit('echo x > 5; rm other', 'far');
    expectEqual();
  }, 60_000);

  /** Makes an image of `source` whose data stand so many bytes later, behind a hole. */
  function moveAway(distance: number): void {
    const image = SquashfsImage.open(lab.at('source'));
    const { inodeTable: end, fragments: count } = image.superblock;
    const fragments = Buffer.alloc(count * 16);
    for (let index = 0; index < count; index++) {
      const { start, word } = image.fragment(index);
      fragments.writeBigUInt64LE(BigInt(start + distance), index * 16);
      fragments.writeUInt32LE(word, index * 16 + 8);
    }
    const tables = encodeTables(
      image.codec,
      new ImageTree(image).root(),
      ({ content }) => {
        const inode = image.file((content as { inode: number }).inode);
        return { ...inode, start: inode.blocks.length > 0 ? inode.start + distance : 0 };
      },
      fragments,
      end + distance,
    );
    const size = end + distance + tables.bytes.length;
    const facts = { compression: 'gzip', blockSize: 131_072, size, time: 1, fragments: count } as const;
    const flags = FLAG.exportable | FLAG.duplicates | FLAG.noXattrs;
    const file = openSync(lab.at('far'), 'w');
    const source = readFileSync(lab.at('source'));
    writeSync(file, source, SUPERBLOCK_SIZE, end - SUPERBLOCK_SIZE, distance + SUPERBLOCK_SIZE);
    writeSync(file, Buffer.concat([tables.bytes, Buffer.alloc(-size & 4095)]), 0, null, end + distance);
    writeSync(file, encodeSuperblock({ ...tables, ...facts, flags }), 0, SUPERBLOCK_SIZE, 0);
    closeSync(file);
    image.close();
  }

  it('packs as many owners as the format knows, and says that there are more', async () => {
    const own = (last: number) =>
      lab.sh(`rm -rf root; mkdir root; cd root; seq ${last} | xargs touch
        python3 -c 'import os\nfor i in range(1, ${last} + 1): os.chown(str(i), i, 0)'`);
    own(65_534);
    await lab.full('root', 'full');
    lab.sh('mkdir -p A; mount -t squashfs -o ro,loop full A; trap "umount A" EXIT; test $(stat -c %u A/65534) = 65534');
    own(65_535);
    await expect(lab.full('root', 'full')).rejects.toThrow('cannot hold more than 65535 different owners and groups');
  }, 180_000);

  it('keeps what an overlay hides of layers of containers in an image', async () => {
    lab.sh(`rm -rf root; mkdir -p root/layers/kept root/layers/changed; cd root/layers
      for d in kept changed; do mknod $d/gone c 0 0; ln $d/gone $d/also-gone; echo x > $d/there; done
      mknod changed/replaced c 0 0; echo linked > a; ln a b`);
    lab.pack('root', 'source', '-comp gzip');
    // What was written by one of its names makes all others be looked at.
    const script = 'cd layers; echo new > changed/new; echo file > changed/replaced; echo more >> a';
    await lab.withOverlay('source', async (overlay) => {
      lab.sh(`cd overlay/merged; ${script}`);
      await lab.delta('source', overlay, 'delta');
      await lab.full('overlay/merged', 'full', {}, 2, 'overlay/lower');
    });
    const names = (image: string) =>
      lab
        .sh(`unsquashfs -lls ${image} | awk '{print $1, $NF}' | sed -n 's|squashfs-root/layers/||p' | sort`)
        .split('\n')
        .filter((line) => /\/(gone|also-gone|replaced|new|there)$/.test(line));
    const device = 'crw-r--r--';
    const file = '-rw-r--r--';
    expect(names('delta').toSorted()).toEqual(
      [
        `${file} changed/new`,
        `${file} changed/replaced`,
        `${file} changed/there`,
        `${file} kept/there`,
        ...['changed', 'kept'].flatMap((name) => [`${device} ${name}/also-gone`, `${device} ${name}/gone`]),
      ].toSorted(),
    );
    // In directories that were not changed, which the overlay lists as they are.
    expect(names('full')).toEqual(expect.arrayContaining([`${device} kept/also-gone`, `${device} kept/gone`]));
  }, 60_000);

  it('says what lies too deep, and what is too large', async () => {
    lab.sh(`rm -rf root; mkdir root; mkdir -p root/$(printf 'a/%.0s' $(seq 1500))`);
    lab.pack('root', 'source', '-comp gzip');
    await expect(lab.full('root', 'full')).rejects.toThrow('cannot hold directories that are more than 1000 deep');
    await lab.withOverlay('source', async (overlay) => {
      await expect(lab.delta('source', overlay, 'delta')).rejects.toThrow('its directories are more than 1000 deep');
    });
    lab.sh(`rm -rf root; mkdir root; python3 -c 'import os
os.chdir("root")
for i in range(60): os.mkdir("d" * 100); os.chdir("d" * 100)'`);
    await expect(lab.full('root', 'full')).rejects.toThrow('cannot hold paths of 4095 bytes, as below "/ddd');
    lab.sh('rm -rf root; mkdir root; truncate -s 1025G root/huge');
    await expect(lab.full('root', 'full')).rejects.toThrow(
      'cannot hold "/huge", which says that it has more than 1 TiB',
    );
  }, 60_000);

  it('takes times that the format does not know for the nearest that it knows', async () => {
    lab.sh(
      "rm -rf root; mkdir root; cd root; echo x > a; touch -d '1960-01-01' a; echo y > b; touch -d '2200-01-01' b",
    );
    await lab.full('root', 'full');
    const times = lab.sh("mkdir -p A; mount -t squashfs -o ro,loop full A; stat -c '%Y' A/a A/b; umount A");
    expect(times.split('\n').slice(0, 2)).toEqual(['0', String(2 ** 32 - 1)]);
  }, 60_000);

  it('never unpacks what stays as it is', async () => {
    lab.sh('rm -rf root; mkdir root; cd root; seq 200000 > kept; echo some > small; echo more > other');
    lab.pack('root', 'source', '-comp gzip');
    const { inodeTable } = await readSuperblock(lab.at('source'));
    await lab.withOverlay('source', async (overlay) => {
      lab.sh('head -c 3000 /dev/urandom > overlay/merged/new');
      const noise = Buffer.from('no block of zlib begins like this');
      const file = openSync(lab.at('source'), 'r+');
      for (const position of [200, inodeTable - noise.length]) writeSync(file, noise, 0, noise.length, position);
      closeSync(file);
      await lab.delta('source', overlay, 'delta');
    });
    // All data of the source, damage and all, and nothing in front of them.
    const [source, image] = ['source', 'delta'].map((name) => readFileSync(lab.at(name)));
    const data = source!.subarray(SUPERBLOCK_SIZE, inodeTable);
    expect(image!.subarray(SUPERBLOCK_SIZE, inodeTable).equals(data)).toBe(true);
  }, 60_000);

  it('packs on more threads than any machine has', async () => {
    lab.sh('rm -rf root; mkdir root; cd root; head -c 3000000 /dev/urandom > kept');
    lab.pack('root', 'source', '-comp zstd -Xcompression-level 1');
    await lab.withOverlay('source', async (overlay) => {
      mkdirSync(`${overlay.merged}/new`);
      for (let number = 0; number < 600; number++) {
        const content = Buffer.alloc(131_072, number);
        content.writeUInt32LE(number);
        writeFileSync(`${overlay.merged}/new/${number}`, content);
      }
      await lab.delta('source', overlay, 'delta', { processors: 512 });
      await lab.delta('source', overlay, 'again', { processors: 1 });
      await lab.full('overlay/merged', 'full', { compression: 'xz' }, 512);
      lab.pack('overlay/merged', 'expected', '-comp zstd -Xcompression-level 1');
    });
    expectEqual();
    expect(readFileSync(lab.at('delta')).equals(readFileSync(lab.at('again')))).toBe(true);
  }, 120_000);
});
