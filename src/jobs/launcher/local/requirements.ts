import { execFile } from 'node:child_process';
import { access, constants, readFile } from 'node:fs/promises';
import path from 'node:path';
import { promisify } from 'node:util';
import type { Arch } from '../../../protocol/arch.js';

const run = promisify(execFile);

/** Commands that local jobs need, and the Debian package of each. */
const PACKAGE_OF_COMMAND = {
  mksquashfs: 'squashfs-tools',
  unsquashfs: 'squashfs-tools',
  sshd: 'openssh-server',
  'ssh-keygen': 'openssh-client',
  slirp4netns: 'slirp4netns',
  unshare: 'util-linux',
  nsenter: 'util-linux',
  setpriv: 'util-linux',
  mount: 'mount',
} as const;

/** Commands that builds from recipes need besides. The package manager depends on the recipe, and is looked for by the build. */
const PACKAGE_OF_BUILD_COMMAND = {
  python3: 'python3',
  rsync: 'rsync',
  tar: 'tar',
  gzip: 'gzip',
  xz: 'xz-utils',
  zstd: 'zstd',
  rpm: 'rpm',
} as const;

/** Where commands are looked for, also when the server was started with a poor PATH (sshd lives in sbin). */
export const COMMAND_PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';

async function isExecutable(file: string): Promise<boolean> {
  return access(file, constants.X_OK).then(
    () => true,
    () => false,
  );
}

async function isInstalled(command: string): Promise<boolean> {
  const found = await Promise.all(
    COMMAND_PATH.split(':').map((directory) => isExecutable(path.join(directory, command))),
  );
  return found.includes(true);
}

async function missingPackages(packageOfCommand: Readonly<Record<string, string>>): Promise<string[]> {
  const packages = await Promise.all(
    Object.entries(packageOfCommand).map(async ([command, name]) => ((await isInstalled(command)) ? null : name)),
  );
  return [...new Set(packages.filter((name) => name !== null))];
}

function howToInstall(packages: readonly string[]): string {
  return `commands are missing: apt-get install -y --no-install-recommends ${packages.join(' ')}`;
}

/** Whether this Python can make environments of its own; Debian keeps that in a package of its own. */
async function canMakeEnvironments(): Promise<boolean> {
  return run('python3', ['-c', 'import ensurepip, venv'], { env: { PATH: COMMAND_PATH }, timeout: 30_000 }).then(
    () => true,
    () => false,
  );
}

/** The machine's name of each architecture, as `process.arch` tells it. */
const MACHINE_OF_ARCH: Record<Arch, string> = { x86_64: 'x64', aarch64: 'arm64' };

/** Whether programs of an architecture run on this machine: by themselves, or by an emulator that the kernel knows. */
async function runsProgramsOf(arch: Arch): Promise<boolean> {
  if (process.arch === MACHINE_OF_ARCH[arch]) return true;
  const entry = await readFile(`/proc/sys/fs/binfmt_misc/qemu-${arch}`, 'utf8').catch(() => '');
  return entry.startsWith('enabled');
}

/** Sentences that say what this machine lacks to build images from recipes; empty where nothing is missing. */
export async function missingForBuilds(arch: Arch): Promise<string[]> {
  const sentences: string[] = [];
  const packages = await missingPackages(PACKAGE_OF_BUILD_COMMAND);
  if (packages.includes('python3') || !(await canMakeEnvironments())) packages.push('python3-venv');
  if (packages.length) sentences.push(howToInstall(packages));
  if (!(await runsProgramsOf(arch)))
    sentences.push(
      `programs of ${arch} do not run here: build the image on a machine of that architecture, or register qemu-user for it (apt-get install -y qemu-user-static binfmt-support)`,
    );
  return sentences;
}

/** Namespaces of a kind that a job is made of, tried for real: policies of hosts and containers differ too much to be guessed. */
async function namespacesRefused(): Promise<string | null> {
  const kinds = ['--user', '--map-root-user', '--mount', '--pid', '--fork', '--uts', '--ipc', '--net', '--cgroup'];
  return run('unshare', [...kinds, 'true'], { env: { PATH: COMMAND_PATH }, timeout: 10_000 }).then(
    () => null,
    (error: { stderr?: string; message: string }) => (error.stderr || error.message).trim().split('\n').at(-1) ?? '',
  );
}

/** Sentences that say what this machine lacks to run local jobs and how to get it; empty where nothing is missing. */
export async function missingRequirements(): Promise<string[]> {
  const sentences: string[] = [];
  if (process.platform !== 'linux') return ['local jobs run on Linux only'];
  if (process.getuid?.() !== 0) sentences.push('local jobs mount images and make namespaces: start the server as root');
  const packages = await missingPackages(PACKAGE_OF_COMMAND);
  if (packages.length) sentences.push(howToInstall(packages));
  if (
    !(await access('/dev/net/tun').then(
      () => true,
      () => false,
    ))
  )
    sentences.push(
      '/dev/net/tun is missing, so that shells can have no network of their own: modprobe tun, or give the container that device',
    );
  if (sentences.length) return sentences;
  const refused = await namespacesRefused();
  if (refused !== null)
    sentences.push(
      `this host lets nobody make namespaces (${refused}): allow user namespaces, or run the container with --privileged`,
    );
  return sentences;
}
