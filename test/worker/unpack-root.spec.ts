import { execFileSync } from 'node:child_process';
import { mkdir, mkdtemp, readFile, rm, stat, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { gzipSync } from 'node:zlib';
import { BadArchive } from '../../src/worker/archive/bad-archive.js';
import { unpackTar } from '../../src/worker/archive/unpack-tar.js';
import { SystemCommands } from '../../src/worker/commands.js';
import { Disk } from '../../src/worker/disk.js';
import { JobDirectory } from '../../src/worker/job-directory.js';
import { unpackRootArchive } from '../../src/worker/root-archive.js';
import { XATTR_PREFIXES } from '../../src/worker/squashfs/xattrs.js';
import { ODD_TREE } from '../squashfs/odd-tree.js';
import { packTar, type TarEntry, writeTar } from '../support/tar-archive.js';

const MIB = 1024 * 1024;
const LIMITS = { maxBytes: 64 * MIB, maxEntries: 10_000 };

let directory: string;
let target: string;

beforeEach(async () => {
  directory = await mkdtemp(path.join(tmpdir(), 'ims-root-archive-'));
  target = path.join(directory, 'tree');
  await mkdir(target);
});
afterEach(() => rm(directory, { recursive: true, force: true }));

const at = (...names: string[]) => path.join(directory, ...names);
const sh = (script: string) => execFileSync('bash', ['-ec', `cd '${directory}'; ${script}`], { encoding: 'utf8' });

async function unpack(archive: string, limits = LIMITS) {
  const remedy = { bytes: 'free some space', entries: 'take out some files' };
  const policy = { limits, remedy, keepsAll: true, xattrs: XATTR_PREFIXES };
  return (await unpackTar(archive, target, policy, new SystemCommands())).unpacked;
}

/** How the tree differs from that which the archive was made of. */
function differences(): string[] {
  return sh(`rsync -aHXni --checksum --delete --numeric-ids root/ tree/
    facts() { cd "$1"; find . -printf '%P %y %m %U %G %n %T@ %l\\n' | sort; find . -type f -printf '%P %s\\n' | sort
      find . -type b -o -type c | sort | xargs -d '\\n' -r stat -c '%n %t:%T'
      getfattr -Rhd -m '^(user|trusted|security)' -e hex . 2>/dev/null; getcap -r .; }
    diff <(facts root) <(facts tree) || true`)
    .split('\n')
    .filter(Boolean);
}

const needsRoot = process.getuid?.() === 0 ? describe : describe.skip;

needsRoot('a root as an archive of GNU tar', () => {
  const XATTRS = "--xattrs --xattrs-include='*'";

  it.each([
    ['plain, pax', `--format=pax ${XATTRS}`],
    ['.tgz', `--format=pax ${XATTRS} --gzip`],
    ['.txz', `--format=pax ${XATTRS} --xz`],
    ['.tar.zst', `--format=pax ${XATTRS} --zstd`],
    ['sparse 1.0', `--format=pax ${XATTRS} --sparse`],
    ['sparse 0.1', `--format=pax ${XATTRS} --sparse --sparse-version=0.1`],
    ['sparse 0.0', `--format=pax ${XATTRS} --sparse --sparse-version=0.0`],
  ])(
    'is unpacked as it was, times to the nanosecond: %s',
    async (_what, options) => {
      sh(`mkdir root; (cd root; ${ODD_TREE}); truncate -s 3M root/opt/sparse
        touch -d '1969-12-31 23:59:58.25 UTC' root/opt/plain
        printf 'a\\0b\\n=\\377' > value; setfattr -n user.binary -v 0x610062013d0aff root/opt/plain
        mkdir -p "root/$(printf 'n%.0s' {1..150})/$(printf 'm%.0s' {1..150})"; ln -s "$(printf 'l%.0s' {1..200})" root/long
        mkdir root/opt/empty; touch $'root/opt/latin\\xff'; ln root/opt/link root/opt/same-link
        tar --create --file archive ${options} --directory root .`);
      const { entries, bytes } = await unpack(at('archive'));
      expect(differences()).toEqual([]);
      expect(entries).toBe(Number(sh('find root -printf x | wc -c')));
      expect(bytes).toBeGreaterThan(2 * MIB);
    },
    60_000,
  );

  it.each([
    ['V7', 'v7', ''],
    ['ustar', 'ustar', ''],
    ['GNU', 'gnu', ''],
    ['sparse GNU', 'gnu', '--sparse'],
  ])('may be of an old format: %s', async (_what, format, options) => {
    // Twenty-five stretches: more than a header has room for, and more than the block behind it.
    sh(`mkdir -p root/d; cd root; touch -d @1000000000 a; echo x > d/file; ln d/file d/linked; ln -s file d/link; chown 7:8 d/file; chmod 4711 d/file
      truncate -s 6M sparse; for i in $(seq 25); do echo "part $i" | dd of=sparse bs=1 seek=$((i * 200000)) conv=notrunc status=none; done
      ${format === 'gnu' ? 'touch "$(printf \'n%.0s\' {1..200})"; ln -s "$(printf \'l%.0s\' {1..200})" long' : ''}
      find . -exec touch -h -d @1000000000 {} +; cd ..
      tar --create --file archive --format=${format} ${options} --directory root .`);
    await unpack(at('archive'));
    expect(differences()).toEqual([]);
    expect((await stat(at('tree/sparse'))).blocks < 1000).toBe(options === '--sparse');
  });

  it('keeps no attributes that no image can hold, and tells how many', async () => {
    sh(`mkdir root; echo x > root/a; setfacl -m u:1234:r root/a; setfattr -n user.kept -v 1 root/a
      tar --create --file archive --format=pax --acls ${XATTRS} --directory root .`);
    await unpack(at('archive'));
    expect(sh('getfattr -d -m - tree/a')).toMatch(/user\.kept/);
    expect(sh('getfattr -d -m - tree/a')).not.toMatch(/posix_acl/);
  });
});

needsRoot('a hostile root', () => {
  it.each<[what: string, entries: TarEntry[], reason: RegExp]>([
    ['an absolute path', [{ name: '/etc/cron.d/x', content: 'x' }], /absolute path/],
    ['a path that climbs', [{ name: 'a/../../x', content: 'x' }], /may lead out/],
    [
      'a file through a link',
      [
        { name: 'out', type: 'symlink', linkname: '..' },
        { name: 'out/x', content: 'x' },
      ],
      /files below "out", which is a link/,
    ],
    [
      'a directory in place of a link',
      [
        { name: 'out', type: 'symlink', linkname: '..' },
        { name: 'out', type: 'directory' },
      ],
      /files below "out", which is a link/,
    ],
    ['a hard link that climbs', [{ name: 'a', type: 'link', linkname: '../outside' }], /may lead out/],
    [
      'a hard link through a link',
      [
        { name: 'out', type: 'symlink', linkname: '..' },
        { name: 'a', type: 'link', linkname: 'out/outside' },
      ],
      /files below "out", which is a link/,
    ],
    [
      'a hard link to a directory',
      [
        { name: 'd', type: 'directory' },
        { name: 'a', type: 'link', linkname: 'd' },
      ],
      /no file/,
    ],
    ['a device of an impossible number', [{ name: 'a', type: 'block-device', devmajor: 5000 }], /impossible number/],
    ['its root as a file', [{ name: './', type: 'symlink', linkname: '/' }], /its own root as a symlink/],
    [
      'too many files',
      Array.from({ length: 11 }, (_, index) => ({ name: `f${index}` })),
      /more than 10 files: take out/,
    ],
    ['too much in them', [{ name: 'a', content: 'x'.repeat(MIB + 1) }], /more than 1 MiB: free some space/],
  ])('with %s is refused, and nothing is written elsewhere', async (_what, entries, reason) => {
    await writeFile(at('outside'), 'untouched');
    await writeTar(at('a.tar'), entries);
    await expect(unpack(at('a.tar'), { maxBytes: MIB, maxEntries: 10 })).rejects.toThrow(reason);
    expect(sh('ls')).toBe('a.tar\noutside\ntree\n');
    expect(await readFile(at('outside'), 'utf8')).toBe('untouched');
    expect((await stat(at('outside'))).nlink).toBe(1);
  });

  it('may have links to anywhere, which nobody follows', async () => {
    await writeFile(at('outside'), 'untouched');
    await writeTar(at('a.tar'), [
      { name: 'link', type: 'symlink', linkname: '../outside', mode: 0o777, uid: 5 },
      { name: 'same', type: 'link', linkname: 'link' },
      { name: 'link', content: 'a file in its place' },
    ]);
    await unpack(at('a.tar'));
    expect(sh('readlink tree/same; stat -c %u tree/same; cat tree/link')).toBe('../outside\n5\na file in its place');
    expect(await readFile(at('outside'), 'utf8')).toBe('untouched');
    expect((await stat(at('outside'))).uid).toBe(0);
  });

  it.each([
    ['more than a tebibyte of holes', '1,2', '1099511627778', /most of them holes/],
    ['a map that goes backwards', '100,1,50,1', '1000', /map of a sparse file is broken/],
    ['a map that goes beyond the end', '0,2000', '1000', /map of a sparse file is broken/],
    ['a map that is no numbers', '0,x', '1000', /no number/],
    ['a map of another length', '0,5', '1000', /another length than its map/],
  ])('with %s is refused', async (_what, map, size, reason) => {
    const pax = { 'GNU.sparse.major': '0', 'GNU.sparse.map': map, 'GNU.sparse.size': size };
    await writeTar(at('a.tar'), [{ name: 'a', content: 'xy', pax }]);
    await expect(unpack(at('a.tar'))).rejects.toThrow(reason);
  });

  it('ends in a clear error or none wherever it is damaged or cut off', async () => {
    sh(`mkdir root; (cd root; echo x > a; setfattr -n user.a -v 1 a; truncate -s 100000 s; echo y >> s; ln a b; mkdir d; mkfifo d/f)
      tar --create --file archive --format=pax --sparse --xattrs --xattrs-include='*' --directory root .`);
    const whole = await readFile(at('archive'));
    let refused = 0;
    for (let number = 0; number < 300; number++) {
      const damaged = Buffer.from(whole);
      const spot = (number * 7919) % (whole.length - 10_240);
      if (number % 3 === 0) damaged[spot] = damaged[spot]! ^ (1 << (number % 8));
      if (number % 3 === 1) damaged.fill(number % 2 ? 0xff : 0x37, spot, spot + 12);
      await writeFile(at('damaged'), damaged);
      if (number % 3 === 2) await truncate(at('damaged'), spot);
      const error = await unpack(at('damaged')).catch((reason: unknown) => reason);
      if (error instanceof BadArchive) refused++;
      else if (error instanceof Error) throw error;
    }
    expect(refused).toBeGreaterThan(150);
  }, 120_000);

  it.each([
    [
      'machine',
      'free some space (old jobs, other files), or give the server a larger STATE_DIR, and start the job again',
    ],
    ['pod', 'start the job again with a larger build_env_size'],
  ] as const)('that has no room on the disk of a %s says how the job gets some', async (place, remedy) => {
    const job = new JobDirectory(directory);
    await writeTar(job.source, [{ name: 'a', content: 'x' }]);
    const full = new Disk(directory, Number.MAX_SAFE_INTEGER, place);
    await expect(unpackRootArchive(job, new SystemCommands(), full, () => {})).rejects.toThrow(
      `the rootfs of the source image holds more than 0 MiB: ${remedy}`,
    );
  });

  it('that unpacks to ten gigabytes of zeros is refused at once', async () => {
    const head = (await packTar([{ name: 'zeros', content: '' }])).subarray(0, 512);
    const zeros = gzipSync(Buffer.alloc(64 * MIB));
    await writeFile(at('bomb.tgz'), Buffer.concat([gzipSync(head), ...Array.from({ length: 160 }, () => zeros)]));
    await expect(unpack(at('bomb.tgz'), { maxBytes: MIB, maxEntries: 10 })).rejects.toThrow(/more than 1 MiB/);
  });
});
