import { execFile } from 'node:child_process';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { promisify } from 'node:util';

const run = promisify(execFile);

/** A package: what its spec says beside what all of them say. */
interface DemoPackage {
  name: string;
  tags?: string;
  install?: string;
  files?: string;
}

/**
 * Just enough for a root: KIWI-NG insists on a package manager in it, and its scripts need a shell.
 * @param shell the program of all commands in it
 */
const packagesWith = (shell: string): readonly DemoPackage[] => [
  {
    name: 'filesystem',
    install: `cd %{buildroot}
mkdir -p usr/bin usr/sbin usr/lib usr/lib64 etc boot dev proc sys run tmp root var/lib var/tmp var/log var/cache
for name in bin sbin lib lib64; do ln -s usr/$name $name; done
echo 'root:x:0:0:root:/root:/bin/sh' > etc/passwd
echo 'root:x:0:' > etc/group`,
    files: '/*',
  },
  {
    name: 'busybox',
    tags: 'Requires: filesystem\nProvides: /bin/sh\nProvides: bash',
    install: `mkdir -p %{buildroot}/usr/bin
cp '${shell}' %{buildroot}/usr/bin/busybox
for name in $(/usr/bin/busybox --list); do
  [ "$name" = busybox ] || ln -sf busybox %{buildroot}/usr/bin/$name
done
printf '#!/bin/sh\\nexec /bin/sh "$@"\\n' > %{buildroot}/usr/bin/bash
chmod 755 %{buildroot}/usr/bin/bash`,
    files: '/usr/bin/*',
  },
  {
    name: 'kernel-tiny',
    tags: 'Requires: filesystem',
    install: `mkdir -p %{buildroot}/boot
echo 'a kernel would stand here' > %{buildroot}/boot/vmlinuz-1
echo 'an initrd would stand here' > %{buildroot}/boot/initrd-1
ln -s vmlinuz-1 %{buildroot}/boot/vmlinuz
ln -s initrd-1 %{buildroot}/boot/initrd`,
    files: '/boot/*',
  },
  {
    name: 'motd-tiny',
    tags: 'Requires: filesystem',
    install: `mkdir -p %{buildroot}/etc; echo 'from a package' > %{buildroot}/etc/motd`,
    files: '/etc/motd',
  },
  { name: 'zypper' },
  { name: 'dnf' },
];

function specOf({ name, tags, install, files }: DemoPackage): string {
  const head = ['Version: 1', 'Release: 1', `Summary: ${name}`, 'License: MIT'];
  return [`Name: ${name}`, ...head, tags, '%description', name, install && `%install\n${install}`, '%files', files, '']
    .filter((part) => part !== undefined)
    .join('\n');
}

/** What rpmbuild would do besides has no meaning for these packages, or refuses a program in a package for all architectures. */
const DEFINES = {
  _build_id_links: 'none',
  debug_package: '%{nil}',
  __os_install_post: '%{nil}',
  _binaries_in_noarch_packages_terminate_build: '0',
};

/**
 * Makes a repository of a few tiny packages (rpm-md), from which a recipe can build a root in seconds. Needs Debian's packages rpm,
 * createrepo-c and busybox-static.
 * @param shell a static program that acts as busybox; that of this machine by default
 * @param kernelArch the only architecture that the kernel is for; all by default
 */
export async function buildDemoRepository(
  directory: string,
  shell = '/usr/bin/busybox',
  kernelArch = 'noarch',
): Promise<void> {
  await mkdir(directory, { recursive: true });
  const work = await mkdtemp(path.join(tmpdir(), 'ims-repository-'));
  try {
    const defines = Object.entries({ ...DEFINES, _topdir: work, _rpmdir: directory, _tmppath: work }).flatMap(
      ([name, value]) => ['--define', `${name} ${value}`],
    );
    for (const demoPackage of packagesWith(shell)) {
      const spec = path.join(work, `${demoPackage.name}.spec`);
      const arch = demoPackage.name === 'kernel-tiny' ? kernelArch : 'noarch';
      await writeFile(spec, specOf(demoPackage));
      await run('rpmbuild', ['-bb', '--quiet', '--target', arch, ...defines, spec]);
    }
    await run('createrepo_c', ['--quiet', directory]);
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}
