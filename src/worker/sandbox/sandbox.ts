import { readdirSync, readFileSync } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { arch } from 'node:os';
import { relative } from 'node:path';
import { IMAGE_ROOT_IN_SHELL } from '../../protocol/signals.js';
import type { CommandEnd, Commands, RunningCommand } from '../commands.js';
import { installSystemCallFilter } from '../linux.js';
import type { Log } from '../log.js';
import type { Namespace, UserNamespace } from '../namespaces.js';
import { systemCallFilter } from './seccomp.js';
import { SSHD_FILES } from './sshd-config.js';

export interface SandboxSettings {
  /** The job directory. */
  directory: string;
  /** Directory that becomes the root, made by `makeBox`; it lies in the job directory, as the next ones do. */
  box: string;
  /** Empty directory, on which the root is put together. */
  boxMount: string;
  /** The image root with the owners of the user namespace. */
  imageRoot: string;
  hostName: string;
  /** Whether the shell may mount file systems in its own namespace, as builds of kernel modules do. */
  dkms: boolean;
  userNamespace: UserNamespace;
  network: Namespace;
}

/** Capabilities of root in a shell. They hold over what belongs to its user namespace only. */
const CAPABILITIES = [
  'audit_write',
  'chown',
  'dac_override',
  'fowner',
  'fsetid',
  'kill',
  'net_bind_service',
  'net_raw',
  'setfcap',
  'setgid',
  'setpcap',
  'setuid',
  'sys_chroot',
];
const DKMS_CAPABILITIES = ['mknod', 'sys_admin'];

/**
 * Puts the root of the shell together, leaves everything else behind, and becomes sshd. Runs as the root of the user namespace, in mount,
 * pid, uts, ipc and cgroup namespaces of its own. Links of the image are followed only after the root has changed, so that they cannot
 * lead to files of the machine. Arguments: the box, the directory to mount it on, the image root, the host name, the capabilities. The first
 * three are names in the working directory: the root of a user namespace may not walk there from above (\`-c\` keeps mount from trying).
 */
const BECOME_SSHD = `
set -e
box=$1 root=$2 image=$3 name=$4 capabilities=$5
ulimit -c 0 -u 8192
hostname "$name"
mount -c --bind "$box" "$root"
cd "$root"
for directory in usr etc/alternatives etc/ssl/certs; do
  [ -d "/$directory" ] || continue
  mount -c --bind "/$directory" "$directory"
  mount -c -o remount,bind,ro,nosuid,nodev "/$directory" "$directory"
done
mount -c -t proc -o nosuid,nodev,noexec proc proc
mount -c -t tmpfs -o mode=755,size=64k,nosuid dev dev
for node in null zero full random urandom tty; do
  : > "dev/$node"
  mount -c --bind "/dev/$node" "dev/$node"
done
mkdir dev/pts dev/shm
mount -c -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts dev/pts
mount -c -t tmpfs -o mode=1777,size=64m,nosuid,nodev shm dev/shm
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
ln -s /proc/self/fd/0 dev/stdin
ln -s /proc/self/fd/1 dev/stdout
ln -s /proc/self/fd/2 dev/stderr
mount -c -t tmpfs -o mode=755,size=64m,nosuid,nodev run run
mkdir -m 755 run/sshd run/old
mount -c --bind "../$image" ".${IMAGE_ROOT_IN_SHELL}"
pivot_root . run/old
umount -l /run/old
rmdir /run/old
for directory in proc dev; do
  mountpoint=${IMAGE_ROOT_IN_SHELL}/$directory
  if [ -d "$mountpoint" ] && [ ! -L "$mountpoint" ]; then mount --rbind "/$directory" "$mountpoint"; fi
done
cd /
exec setpriv --bounding-set "$capabilities" --inh-caps -all -- /usr/sbin/sshd -D -e -f ${SSHD_FILES.config}
`;

/** Namespaces of the sandbox besides those of users and of the network. */
const UNSHARE = [
  '--mount',
  '--propagation',
  'private',
  '--pid',
  '--fork',
  '--kill-child=KILL',
  '--uts',
  '--ipc',
  '--cgroup',
];

/** The environment of a user, with its sshd. */
export class Sandbox {
  private constructor(private readonly command: RunningCommand) {}

  /**
   * Starts it. From now on this process, too, is under the system call filter of the sandbox.
   * @param log gets what sshd says
   */
  static async start(settings: SandboxSettings, commands: Commands, log: Log): Promise<Sandbox> {
    const { directory, box, boxMount, imageRoot, hostName, dkms, userNamespace, network } = settings;
    await mkdir(boxMount, { recursive: true });
    const capabilities = [...CAPABILITIES, ...(dkms ? DKMS_CAPABILITIES : [])].map((name) => `+${name}`);
    const own = (fd: number) => `/proc/${process.pid}/fd/${fd}`;
    installSystemCallFilter(systemCallFilter(arch()));
    // The network belongs to this process's user namespace: it can be entered only before the other one is.
    const enter = [
      `--net=${own(network.fd)}`,
      '--',
      'nsenter',
      `--user=${own(userNamespace.fd)}`,
      '--setuid=0',
      '--setgid=0',
    ];
    const names = [box, boxMount, imageRoot].map((path) => relative(directory, path));
    const script = ['bash', '-c', BECOME_SSHD, 'sandbox', ...names, hostName];
    const command = await commands.start(
      'nsenter',
      [...enter, '--', 'unshare', ...UNSHARE, '--', ...script, ['-all', ...capabilities].join(',')],
      { cwd: directory, onLine: (line) => log('sshd', { line }) },
    );
    return new Sandbox(command);
  }

  /** Resolves when everything in the sandbox is dead. */
  get ended(): Promise<CommandEnd> {
    return this.command.ended;
  }

  /** Whether anything runs in it beside its sshd: a login, or what a user left running. */
  isUsed(): boolean {
    const first = childrenOf(this.command.pid)[0];
    return first !== undefined && childrenOf(first).length > 0;
  }

  /**
   * Ends everything in the sandbox, and resolves when it is dead. The first process of a pid namespace takes all others with it, and its
   * parent learns of its end only then; were the parent killed instead, others could go on for a moment.
   */
  async kill(): Promise<void> {
    const first = childrenOf(this.command.pid)[0];
    if (first === undefined) this.command.kill();
    else process.kill(first, 'SIGKILL');
    await this.ended;
  }
}

function childrenOf(parent: number): number[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name) && parentOf(name) === parent)
    .map(Number);
}

/** From proc_pid_stat(5): the name of the program stands in parentheses and may hold anything. */
function parentOf(pid: string): number | null {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    return Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[1]);
  } catch {
    return null;
  }
}
