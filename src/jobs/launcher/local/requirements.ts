import { execFile } from 'node:child_process';
import { access, constants, readFile } from 'node:fs/promises';
import path from 'node:path';
import { promisify } from 'node:util';

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

/** Sentences that say what this machine lacks to build images from recipes; empty where nothing is missing. */
export async function missingForBuilds(): Promise<string[]> {
  const packages = await missingPackages(PACKAGE_OF_BUILD_COMMAND);
  if (packages.includes('python3') || !(await canMakeEnvironments())) packages.push('python3-venv');
  return packages.length ? [howToInstall(packages)] : [];
}

/**
 * Capabilities that the server needs to run jobs, by their numbers in linux/capability.h. docker-compose.yml gives its container these and no
 * others.
 */
export const CAPABILITIES = {
  CHOWN: 0,
  DAC_OVERRIDE: 1,
  FOWNER: 3,
  FSETID: 4,
  KILL: 5,
  SETGID: 6,
  SETUID: 7,
  SETPCAP: 8,
  NET_ADMIN: 12,
  SYS_CHROOT: 18,
  SYS_PTRACE: 19,
  SYS_ADMIN: 21,
  MKNOD: 27,
  SETFCAP: 31,
} as const;

async function missingCapabilities(): Promise<string[]> {
  const status = await readFile('/proc/self/status', 'utf8');
  const effective = BigInt(`0x${/^CapEff:\s*([\da-f]+)$/m.exec(status)![1]}`);
  return Object.entries(CAPABILITIES)
    .filter(([, number]) => !((effective >> BigInt(number)) & 1n))
    .map(([name]) => name);
}

/** As jobs do: namespaces with a proc of their own, in them those of a sandbox, and in these another root. */
const TRIAL = [
  ...'--mount --propagation private --pid --fork --mount-proc --'.split(' '),
  ...'unshare --user --map-root-user --mount --pid --fork --uts --ipc --net --cgroup --'.split(' '),
  'sh',
  '-c',
  'mount -t tmpfs none /tmp && cd /tmp && mkdir old && pivot_root . old',
];

/** What a job is made of, tried for real: policies of hosts and containers differ too much to be guessed. */
async function sandboxRefused(): Promise<string | null> {
  return run('unshare', TRIAL, { env: { PATH: COMMAND_PATH }, timeout: 10_000 }).then(
    () => null,
    (error: { stderr?: string; message: string }) => (error.stderr || error.message).trim().split('\n').at(-1) ?? '',
  );
}

async function exists(file: string): Promise<boolean> {
  return access(file).then(
    () => true,
    () => false,
  );
}

/** Sentences that say what this machine lacks to run local jobs and how to get it; empty where nothing is missing. */
export async function missingRequirements(): Promise<string[]> {
  if (process.platform !== 'linux') return ['local jobs run on Linux only'];
  if (process.getuid?.() !== 0) return ['local jobs mount images and make namespaces: start the server as root'];
  const sentences: string[] = [];
  const packages = await missingPackages(PACKAGE_OF_COMMAND);
  if (packages.length) sentences.push(howToInstall(packages));
  const capabilities = await missingCapabilities();
  if (capabilities.length)
    sentences.push(`the server may do too little: give its container the capabilities ${capabilities.join(', ')}`);
  if (!(await exists('/dev/net/tun')))
    sentences.push(
      '/dev/net/tun is missing, so that shells can have no network of their own: modprobe tun, or give the container that device',
    );
  if (sentences.length) return sentences;
  const refused = await sandboxRefused();
  if (refused !== null)
    sentences.push(
      `this host refuses what the sandboxes of jobs are made of (${refused}): allow user namespaces, and run a container with seccomp=unconfined and apparmor=unconfined, as docker-compose.yml does`,
    );
  return sentences;
}
