import { execFile } from 'node:child_process';
import { chmod, copyFile, mkdir, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { promisify } from 'node:util';
import { gzipSync } from 'node:zlib';

const run = promisify(execFile);

/** The artifacts of a small image, as files in a directory. */
export interface DemoImage {
  rootfs: string;
  kernel: string;
  initrd: string;
  bootParameters: string;
}

export interface DemoImageOptions {
  /** As mksquashfs names it. */
  compression?: string;
  /** Changes the tree before it is packed. */
  prepare?: (root: string) => Promise<void>;
}

/** Directories of the root. */
const DIRECTORIES = [
  'bin',
  'boot',
  'dev',
  'etc',
  'home',
  'opt',
  'proc',
  'root',
  'run',
  'sys',
  'tmp',
  'usr/bin',
  'var/tmp',
];

/** Files of the root by path. */
const FILES: Record<string, string> = {
  'etc/passwd': 'root:x:0:0:root:/root:/bin/sh\n',
  'etc/group': 'root:x:0:\n',
  'etc/shadow': 'root:*:19000:0:99999:7:::\n',
  'etc/hostname': 'demo\n',
  'etc/os-release': 'ID=demo\nNAME="Demo"\nPRETTY_NAME="A small image of busybox"\n',
  'boot/kernel-parameters': 'console=ttyS0 quiet\n',
  'boot/vmlinuz-1': 'a kernel would stand here\n',
};

/** Links of the root: link, then target. The one at resolv.conf leads nowhere on purpose, as those of many distributions do. */
const LINKS: [string, string][] = [
  ['etc/resolv.conf', '/run/resolv.conf'],
  ['boot/vmlinuz', 'vmlinuz-1'],
  ['boot/initrd', 'initrd-1'],
];

/** Owners, modes and devices, by mksquashfs's own description: so nobody needs to be root to make them. */
const PSEUDO_FILES = [
  '/ m 755 0 0',
  'tmp m 1777 0 0',
  'var/tmp m 1777 0 0',
  'root m 700 0 0',
  'etc/shadow m 600 0 42',
  'bin/busybox m 4755 0 0',
  'dev/null c 666 0 0 1 3',
  'dev/zero c 666 0 0 1 5',
  'dev/tty c 666 0 0 5 0',
];

async function fillRoot(root: string): Promise<void> {
  for (const directory of DIRECTORIES) await mkdir(path.join(root, directory), { recursive: true });
  for (const [name, text] of Object.entries(FILES)) await writeFile(path.join(root, name), text);
  for (const [name, target] of LINKS) await symlink(target, path.join(root, name));
  await writeFile(path.join(root, 'boot/initrd-1'), gzipSync('an initrd would stand here\n'));
  await copyFile('/usr/bin/busybox', path.join(root, 'bin/busybox')).catch(() =>
    copyFile('/bin/busybox', path.join(root, 'bin/busybox')),
  );
  await chmod(path.join(root, 'bin/busybox'), 0o755);
  const { stdout } = await run(path.join(root, 'bin/busybox'), ['--list']);
  for (const applet of stdout.split('\n'))
    if (applet && applet !== 'busybox') await symlink('busybox', path.join(root, 'bin', applet));
}

/**
 * Builds a small image with the shape of a real one, from Debian's package busybox-static, without being root.
 * @param directory gets the artifacts
 */
export async function buildDemoImage(
  directory: string,
  { compression = 'gzip', prepare }: DemoImageOptions = {},
): Promise<DemoImage> {
  await mkdir(directory, { recursive: true });
  const work = await mkdtemp(path.join(tmpdir(), 'ims-demo-'));
  try {
    const root = path.join(work, 'root');
    await fillRoot(root);
    await prepare?.(root);
    const pseudo = path.join(work, 'pseudo');
    await writeFile(pseudo, `${PSEUDO_FILES.join('\n')}\n`);
    const rootfs = path.join(directory, 'rootfs');
    await run('mksquashfs', [
      root,
      rootfs,
      '-all-root',
      '-pf',
      pseudo,
      '-noappend',
      '-no-progress',
      '-quiet',
      '-comp',
      compression,
    ]);
    const copies = { kernel: 'boot/vmlinuz-1', initrd: 'boot/initrd-1', bootParameters: 'boot/kernel-parameters' };
    for (const [name, file] of Object.entries(copies))
      await copyFile(path.join(root, file), path.join(directory, name));
    const at = (name: string) => path.join(directory, name);
    return { rootfs, kernel: at('kernel'), initrd: at('initrd'), bootParameters: at('bootParameters') };
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}
