import { spawn } from 'node:child_process';
import { access } from 'node:fs/promises';

/** What a quickstart shows: changing an image in a shell, or building one from a recipe besides. */
export type Show = 'shells' | 'builds';

/** Debian packages that the quickstart needs, each with a file that tells whether it is there. */
const SHELL_PACKAGES: Record<string, string> = {
  'squashfs-tools': '/usr/bin/mksquashfs',
  'openssh-server': '/usr/sbin/sshd',
  'openssh-client': '/usr/bin/ssh',
  slirp4netns: '/usr/bin/slirp4netns',
  'busybox-static': '/usr/bin/busybox',
  openssl: '/usr/bin/openssl',
};
const BUILD_PACKAGES: Record<string, string> = {
  'python3-venv': '/usr/share/doc/python3-venv',
  rsync: '/usr/bin/rsync',
  'xz-utils': '/usr/bin/xz',
  zstd: '/usr/bin/zstd',
  rpm: '/usr/bin/rpmbuild',
  'createrepo-c': '/usr/bin/createrepo_c',
  zypper: '/usr/bin/zypper',
};

async function missingPackages(show: Show): Promise<string[]> {
  const missing = await Promise.all(
    Object.entries({ ...SHELL_PACKAGES, ...(show === 'builds' && BUILD_PACKAGES) }).map(async ([name, file]) =>
      access(file).then(
        () => null,
        () => name,
      ),
    ),
  );
  return missing.filter((name) => name !== null);
}

async function run(command: string, args: string[]): Promise<number> {
  // A package that brings a server must not start it: this machine's own ssh is none of our business.
  const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' };
  const child = spawn(command, args, { stdio: ['ignore', 'ignore', 'inherit'], env });
  return new Promise((resolve, reject) => child.once('error', reject).once('close', (code) => resolve(code ?? 1)));
}

/**
 * Installs what is missing of Debian's packages.
 * @throws Error with the line to run, where this user may not install packages or it fails
 */
export async function installPackages(say: (text: string) => void, show: Show): Promise<void> {
  const missing = await missingPackages(show);
  if (!missing.length) return;
  const line = `apt-get update && apt-get install -y --no-install-recommends ${missing.join(' ')}`;
  if (process.getuid?.() !== 0)
    throw new Error(`Debian packages are missing, and only root installs them. Run:\n  sudo sh -c '${line}'`);
  say(`installing Debian packages: ${missing.join(' ')}`);
  await run('apt-get', ['update', '-qq']);
  if (await run('apt-get', ['install', '-y', '-qq', '--no-install-recommends', ...missing]))
    throw new Error(`installing packages failed. Run:\n  ${line}`);
}
