import { execFileSync, spawnSync } from 'node:child_process';
import {
  lstat,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  readlink,
  realpath,
  rm,
  stat,
  symlink,
  writeFile,
} from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import fc from 'fast-check';
import { isMissing, listInRoot, NotAFile, openInRoot, removeInRoot, writeInRoot } from './in-root.js';
import { findIn } from './linux.js';

let base: string;
let root: string;
/** Lies beside the root, where no path may lead. */
let outside: string;

beforeEach(async () => {
  base = await realpath(await mkdtemp(path.join(tmpdir(), 'ims-in-root-')));
  root = path.join(base, 'root');
  outside = path.join(base, 'outside');
  await mkdir(path.join(root, 'boot'), { recursive: true });
  await mkdir(path.join(root, 'etc'));
  await mkdir(outside);
  await writeFile(path.join(outside, 'secret'), 'secret of the host');
  await writeFile(path.join(root, 'boot/vmlinuz-1'), 'kernel');
  await writeFile(path.join(root, 'etc/shadow'), 'shadow of the image');
});
afterEach(() => rm(base, { recursive: true, force: true }));

async function read(file: string): Promise<string> {
  const handle = await openInRoot(root, file);
  try {
    return await handle.readFile('utf8');
  } finally {
    await handle.close();
  }
}

const link = (target: string, name: string) => symlink(target, path.join(root, name));

describe('openInRoot', () => {
  it.each([
    ['a file', 'vmlinuz-1'],
    ['a relative link', 'vmlinuz-1'],
    ['an absolute link', '/boot/vmlinuz-1'],
    ['a link that climbs above the root', '../../../../boot/vmlinuz-1'],
    ['a link through the directory itself', './../boot//vmlinuz-1'],
  ])('reads %s', async (_what, target) => {
    await link(target, 'boot/vmlinuz');
    expect(await read('/boot/vmlinuz')).toBe('kernel');
  });

  it('reads a file of the root where a link names one of the host', async () => {
    await link('/etc/shadow', 'boot/vmlinuz');
    expect(await read('boot/vmlinuz')).toBe('shadow of the image');
  });

  it('follows a linked directory inside of the root', async () => {
    await rm(path.join(root, 'boot'), { recursive: true });
    await link('/', 'boot');
    expect(await read('boot/etc/shadow')).toBe('shadow of the image');
  });

  it.each([
    ['a path of the host', () => path.join(outside, 'secret')],
    ['a way to the host by dots', () => '../../outside/secret'],
    ['a link to nothing', () => 'nowhere'],
    ['the open files of the worker', () => '/proc/self/fd/0'],
  ])('finds nothing behind a link to %s', async (_what, target) => {
    await link(target(), 'boot/vmlinuz');
    await expect(read('boot/vmlinuz')).rejects.toMatchObject({ code: 'ENOENT' });
  });

  it('ends a loop of links', async () => {
    await link('b', 'a');
    await link('a', 'b');
    await expect(read('a')).rejects.toMatchObject({ code: 'ELOOP' });
  });

  it.each(['boot/vmlinuz-1/', 'boot/vmlinuz-1/.', 'boot/vmlinuz-1/..', 'boot/vmlinuz-1/x'])(
    'refuses to go through a file, as in %s',
    async (file) => {
      await expect(read(file)).rejects.toMatchObject({ code: 'ENOTDIR' });
    },
  );

  it('refuses a directory, and does not wait at a fifo', async () => {
    execFileSync('mkfifo', [path.join(root, 'boot/fifo')]);
    await expect(read('boot')).rejects.toThrow(NotAFile);
    await expect(read('boot/fifo')).rejects.toThrow(NotAFile);
  });

  it('takes names as they are', async () => {
    const name = `a 'b' "c" $(id)\n\u{1f427}`;
    await writeFile(path.join(root, name), 'odd');
    await link(name, 'odd');
    expect(await read('odd')).toBe('odd');
  });
});

describe('a path of a root', () => {
  type Entry = { at: string[]; target: string | null };

  /** Makes a tree, and asks the kernel for the inode that a path leads a process to whose root is that tree; null where it leads nowhere. */
  function askKernel(entries: Entry[], asked: string): number | null {
    execFileSync('cp', ['/usr/bin/busybox', `${root}/busybox`]);
    const commands = entries.flatMap(({ at, target }) => {
      const directory = target === null ? at : at.slice(0, -1);
      return [
        `/busybox mkdir -p '/${directory.join('/')}'`,
        ...(target === null ? [] : [`/busybox ln -s '${target}' '/${at.join('/')}'`]),
      ];
    });
    const script = [...commands, `/busybox stat -L -c %i '${asked}'`].join('\n');
    const { stdout } = spawnSync('chroot', [root, '/busybox', 'sh', '-c', script], { encoding: 'utf8' });
    return stdout ? Number(stdout) : null;
  }

  const asRoot = process.getuid?.() === 0 ? it : it.skip;
  asRoot('agrees with the kernel on any tree of links, and stays inside', async () => {
    const name = fc.constantFrom('a', 'b', 'c');
    const step = fc.oneof({ weight: 4, arbitrary: name }, { weight: 1, arbitrary: fc.constantFrom('..', '.', '') });
    const target = fc
      .tuple(fc.boolean(), fc.array(step, { minLength: 1, maxLength: 4 }))
      .map(([absolute, steps]) => (absolute ? '/' : '') + (steps.join('/') || '.'));
    const entry = fc.record({
      at: fc.array(name, { minLength: 1, maxLength: 3 }),
      target: fc.oneof(fc.constant(null), target),
    });
    const anyPath = fc.array(step, { minLength: 1, maxLength: 5 }).map((steps) => `/${steps.join('/')}`);
    await fc.assert(
      fc.asyncProperty(fc.array(entry, { maxLength: 8 }), anyPath, async (entries, asked) => {
        await rm(root, { recursive: true });
        await mkdir(root);
        const inode = askKernel(entries, asked);
        const found = findIn(root, asked, 'any');
        expect(found && found.stat().ino).toBe(inode);
        expect(found === null || `${await readlink(found.path)}/`.startsWith(`${root}/`)).toBe(true);
        found?.close();
      }),
      { numRuns: 100 },
    );
  });
});

describe('writeInRoot', () => {
  const file = '/etc/cray/ca/certificate_authority.crt';

  it('makes directories, and the file with its mode whatever the umask', async () => {
    const umask = process.umask(0o077);
    try {
      await writeInRoot(root, file, 'PEM', 0o644);
    } finally {
      process.umask(umask);
    }
    const stats = await stat(path.join(root, file));
    expect(await readFile(path.join(root, file), 'utf8')).toBe('PEM');
    expect(stats.mode & 0o7777).toBe(0o644);
    expect(await readdir(path.join(root, 'etc/cray/ca'))).toEqual(['certificate_authority.crt']);
  });

  it.each([
    ['an absolute link to a directory of the host', () => outside],
    ['a link that climbs to it', () => '../../outside'],
    ['a link to nothing', () => '/nowhere'],
  ])('refuses where /etc is %s', async (_what, target) => {
    await rm(path.join(root, 'etc'), { recursive: true });
    await link(target(), 'etc');
    await expect(writeInRoot(root, file, 'PEM', 0o644)).rejects.toMatchObject({ code: 'EEXIST' });
    expect(await readdir(outside)).toEqual(['secret']);
  });

  it('replaces a link in place of writing through it', async () => {
    await mkdir(path.join(root, 'etc/cray/ca'), { recursive: true });
    await link('/etc/shadow', file);
    await writeInRoot(root, file, 'PEM', 0o644);
    expect(await readFile(path.join(root, 'etc/shadow'), 'utf8')).toBe('shadow of the image');
    expect((await lstat(path.join(root, file))).isFile()).toBe(true);
  });

  it('refuses where a file stands in the way, and leaves nothing', async () => {
    await writeFile(path.join(root, 'etc/cray'), '');
    await expect(writeInRoot(root, file, 'PEM', 0o644)).rejects.toMatchObject({ code: 'EEXIST' });
    await mkdir(path.join(root, 'opt/name'), { recursive: true });
    await expect(writeInRoot(root, 'opt/name', 'PEM', 0o644)).rejects.toThrow('EISDIR');
    expect(await readdir(path.join(root, 'opt'))).toEqual(['name']);
  });
});

describe('removeInRoot', () => {
  it('removes a file, a link but not what it leads to, and a directory', async () => {
    await link('/etc/shadow', 'complete');
    await removeInRoot(root, '/complete');
    await removeInRoot(root, '/boot');
    expect(await readdir(root)).toEqual(['etc']);
    expect(await read('etc/shadow')).toBe('shadow of the image');
  });

  it('stays inside where the directory is a link to one of the host', async () => {
    await link(outside, 'tmp');
    await removeInRoot(root, '/tmp/secret');
    expect(await readdir(outside)).toEqual(['secret']);
    expect(await readlink(path.join(root, 'tmp'))).toBe(outside);
  });

  it('takes what is missing as removed', async () => {
    await removeInRoot(root, '/tmp/complete');
    await removeInRoot(root, '/boot/complete');
  });
});

test('listInRoot names what a linked directory holds, and refuses a file', async () => {
  await link('boot', 'start');
  expect(await listInRoot(root, '/start')).toEqual(['vmlinuz-1']);
  await expect(listInRoot(root, '/etc/shadow')).rejects.toMatchObject({ code: 'ENOTDIR' });
});

test('isMissing tells what is not there from what failed', async () => {
  const missing: unknown = await read('nothing').catch((error: unknown) => error);
  const failed: unknown = await read('boot').catch((error: unknown) => error);
  expect([missing, failed, null].map(isMissing)).toEqual([true, false, false]);
});

test('no file stays open', async () => {
  const before = (await readdir('/proc/self/fd')).length;
  await link('/etc/shadow', 'boot/vmlinuz');
  await read('boot/vmlinuz');
  await expect(read('boot/nothing')).rejects.toThrow();
  await expect(read('boot')).rejects.toThrow();
  expect((await readdir('/proc/self/fd')).length).toBe(before);
});
