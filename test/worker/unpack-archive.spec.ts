import { execFileSync } from 'node:child_process';
import { chmod, mkdir, mkdtemp, readdir, readFile, readlink, rm, stat, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { gzipSync } from 'node:zlib';
import { readTar } from '../../src/worker/archive/tar-reader.js';
import { SystemCommands } from '../../src/worker/commands.js';
import { unpackArchive } from '../../src/worker/recipe/unpack-archive.js';
import { packTar, type TarEntry, writeTar } from '../support/tar-archive.js';

const MIB = 1024 * 1024;
const LIMITS = { maxBytes: MIB, maxEntries: 100 };

let directory: string;
let target: string;

beforeEach(async () => {
  directory = await mkdtemp(path.join(tmpdir(), 'ims-unpack-'));
  target = path.join(directory, 'recipe');
});
afterEach(() => rm(directory, { recursive: true, force: true }));

const at = (name: string) => path.join(directory, name);
const unpack = (archive: string, limits = LIMITS) => unpackArchive(archive, target, limits, new SystemCommands());
const unpackEntries = async (...entries: TarEntry[]) => unpack(await writeTar(at('a.tar'), entries));

describe('an archive of a recipe', () => {
  const COMPRESSIONS = {
    'a.tar': ['--no-auto-compress'],
    'v7.tar': ['--no-auto-compress', '--format=v7'],
    'a.tgz': ['--gzip'],
    'a.txz': ['--xz'],
    'a.tar.zst': ['--zstd'],
  };

  it.each(Object.entries(COMPRESSIONS))('made by tar as %s is unpacked as it is', async (name, options) => {
    await mkdir(at('in/root/etc'), { recursive: true });
    await writeFile(at('in/config.sh'), '#!/bin/sh\n');
    await chmod(at('in/config.sh'), 0o755);
    await symlink('/usr/lib', at('in/root/etc/lib'));
    await symlink('config.sh', at('in/images.sh'));
    execFileSync('tar', ['--create', '--file', at(name), ...options, '--directory', at('in'), '.']);
    expect(await unpack(at(name))).toMatchObject({ bytes: 10 });
    expect(await readFile(path.join(target, 'config.sh'), 'utf8')).toBe('#!/bin/sh\n');
    expect((await stat(path.join(target, 'config.sh'))).mode & 0o7777).toBe(0o755);
    expect(await readlink(path.join(target, 'root/etc/lib'))).toBe('/usr/lib');
    expect(await readlink(path.join(target, 'images.sh'))).toBe('config.sh');
  });

  it('may hold hard links to its own files, and a file twice', async () => {
    await unpackEntries(
      { name: 'one', content: 'first' },
      { name: 'one', content: 'second' },
      { name: 'two', type: 'link', linkname: 'one' },
    );
    expect(await readFile(path.join(target, 'two'), 'utf8')).toBe('second');
    expect((await stat(path.join(target, 'one'))).nlink).toBe(2);
  });
});

describe('a hostile archive', () => {
  it.each<[what: string, entries: TarEntry[], reason: RegExp]>([
    ['an absolute path', [{ name: '/etc/cron.d/x', content: 'x' }], /absolute path "\/etc\/cron\.d\/x"/],
    ['a path that climbs', [{ name: 'a/../../x', content: 'x' }], /"a\/\.\.\/\.\.\/x", which may lead out/],
    [
      'a file through a link',
      [
        { name: 'out', type: 'symlink', linkname: '..' },
        { name: 'out/x', content: 'x' },
      ],
      /files below "out", which is a link/,
    ],
    [
      'a file through a link of the overlay',
      [
        { name: 'root/out', type: 'symlink', linkname: '/etc' },
        { name: 'root/out/x', content: 'x' },
      ],
      /files below "root\/out", which is a link/,
    ],
    [
      'a file over a link',
      [
        { name: 'config.xml', type: 'symlink', linkname: '../x' },
        { name: 'config.xml/x', content: 'x' },
      ],
      /files below "config.xml", which is a link/,
    ],
    ['a link that leads out', [{ name: 'a', type: 'symlink', linkname: '../../etc' }], /link "a", which leads out/],
    ['an absolute link', [{ name: 'a', type: 'symlink', linkname: '/etc/shadow' }], /link "a", which leads out/],
    ['a hard link that leads out', [{ name: 'a', type: 'link', linkname: '../x' }], /"\.\.\/x", which may lead out/],
    ['an absolute hard link', [{ name: 'a', type: 'link', linkname: '/etc/shadow' }], /absolute path "\/etc\/shadow"/],
    [
      'a hard link through a link',
      [
        { name: 'out', type: 'symlink', linkname: '..' },
        { name: 'a', type: 'link', linkname: 'out/outside' },
      ],
      /files below "out", which is a link/,
    ],
    ['a device', [{ name: 'a', type: 'block-device', devmajor: 7 }], /"a", which is a block device/],
    ['a fifo', [{ name: 'a', type: 'fifo' }], /"a", which is a fifo/],
    [
      'a file in place of a directory',
      [
        { name: 'a/b', content: 'x' },
        { name: 'a', content: 'x' },
      ],
      /"a" both as a directory and as something else/,
    ],
    [
      'a link to a name with a NUL',
      [{ name: 'a', type: 'symlink', linkname: 'b', pax: { linkpath: 'b\0c' } }],
      /the link "a", whose target is no path/,
    ],
    ['a link to nothing', [{ name: 'a', type: 'symlink', linkname: '' }], /the link "a", whose target is no path/],
    ['a name that is too long', [{ name: 'x'.repeat(300), content: 'x' }], /name that is too long/],
    ['too many files', Array.from({ length: 101 }, (_, index) => ({ name: `f${index}` })), /more than 100 files/],
    ['too large a file', [{ name: 'a', content: 'x'.repeat(MIB + 1) }], /more than 1 MiB/],
  ])('with %s is refused, and nothing is written elsewhere', async (_what, entries, reason) => {
    await writeFile(at('outside'), 'untouched');
    await expect(unpackEntries(...entries)).rejects.toThrow(reason);
    expect((await readdir(directory)).toSorted((a, b) => a.localeCompare(b))).toEqual(['a.tar', 'outside', 'recipe']);
    expect(await readFile(at('outside'), 'utf8')).toBe('untouched');
    expect((await stat(at('outside'))).nlink).toBe(1);
  });

  it('whose map of a sparse file has no end is refused at its first block', async () => {
    const pax = { 'GNU.sparse.major': '1', 'GNU.sparse.minor': '0', 'GNU.sparse.realsize': '1' };
    const whole = await packTar([{ name: 'a', content: '\0'.repeat(MIB), pax }]);
    let taken = 0;
    async function* inPieces() {
      for (; taken < whole.length; taken += 4096) yield whole.subarray(taken, taken + 4096);
    }
    await expect(readTar(inPieces()).next()).rejects.toThrow(/is no number/);
    expect(taken).toBeLessThan(10_000);
  });

  it('that unpacks to ten gigabytes of zeros is refused at once', async () => {
    const [size, piece] = [10 * 1024 ** 3, 64 * MIB];
    const head = (await packTar([{ name: 'zeros', content: '' }])).subarray(0, 512);
    // The header says nothing of the size; what follows the end of the archive is counted all the same.
    const zeros = gzipSync(Buffer.alloc(piece));
    const pieces = Array.from({ length: size / piece }, () => zeros);
    await writeFile(at('bomb.tgz'), Buffer.concat([gzipSync(head), ...pieces]));
    await expect(unpack(at('bomb.tgz'))).rejects.toThrow(/more than 1 MiB/);
  });
});

describe('a damaged archive', () => {
  it.each([
    ['text', Buffer.from('not an archive'), /is no tar archive/],
    ['nothing', Buffer.alloc(0), /is no tar archive/],
    ['a compressed text', gzipSync('not an archive at all, but a text that somebody has compressed'), /is damaged/],
    ['half of gzip', gzipSync(Buffer.alloc(MIB / 2)).subarray(0, 200), /cannot be decompressed to its end/],
  ])('that is %s is refused', async (_what, content, reason) => {
    await writeFile(at('a.tgz'), content);
    await expect(unpack(at('a.tgz'))).rejects.toThrow(reason);
  });

  it('that was cut off within a file is refused', async () => {
    const whole = await packTar([{ name: 'config.xml', content: 'x'.repeat(100_000) }]);
    await writeFile(at('a.tar'), whole.subarray(0, 50_000));
    await expect(unpack(at('a.tar'))).rejects.toThrow(/is damaged/);
  });
});
