import { execFile } from 'node:child_process';
import { access, constants } from 'node:fs/promises';
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

async function missingPackages(): Promise<string[]> {
  const packages = await Promise.all(
    Object.entries(PACKAGE_OF_COMMAND).map(async ([command, name]) => ((await isInstalled(command)) ? null : name)),
  );
  return [...new Set(packages.filter((name) => name !== null))];
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
  const packages = await missingPackages();
  if (packages.length)
    sentences.push(`commands are missing: apt-get install -y --no-install-recommends ${packages.join(' ')}`);
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
