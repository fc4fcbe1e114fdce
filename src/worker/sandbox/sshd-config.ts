import type { Arch } from '../../protocol/arch.js';
import { IMAGE_ROOT_IN_SHELL } from '../../protocol/signals.js';

/** What the configuration of a shell's sshd depends on. None of it is free text. */
export interface SshdSettings {
  /** A UUID. */
  jobId: string;
  arch: Arch;
  /** Whether kernel modules can be built in the environment. */
  dkms: boolean;
  /** Whether the user stands inside of the image root at once. */
  jail: boolean;
  /** Which addresses sshd listens on: `inet` for those of IPv4. */
  addressFamily: 'any' | 'inet';
  /** Release of OpenSSH, as 9.2. */
  release: number;
}

/** Files of sshd in the environment. */
export const SSHD_FILES = {
  config: '/etc/cray/ims/sshd_config',
  authorizedKeys: '/etc/cray/ims/authorized_keys',
  hostKey: '/etc/ssh/ssh_host_ed25519_key',
} as const;

/** The port of sshd in the network of the environment. */
export const SSHD_PORT = 22;

/** Variables that the user's programs see. */
function environment({ jobId, arch, dkms }: SshdSettings): string {
  if (!/^[0-9a-f-]+$/.test(jobId)) throw new Error('the id of a job is a UUID');
  // One directive for all: sshd takes the first SetEnv and ignores the others.
  return `SetEnv IMS_JOB_ID=${jobId} IMS_ARCH=${arch} IMS_DKMS_ENABLED=${dkms ? 'True' : 'False'} REMOTE_BUILD_NODE= HISTFILE=/dev/null`;
}

/** The sshd_config of a shell (sshd_config(5)): the key of the job opens it as root, and nothing else does. */
export function sshdConfig(settings: SshdSettings): string {
  return [
    `Port ${SSHD_PORT}`,
    `AddressFamily ${settings.addressFamily}`,
    `HostKey ${SSHD_FILES.hostKey}`,
    'PidFile none',
    'AllowUsers root',
    'PermitRootLogin prohibit-password',
    `AuthorizedKeysFile ${SSHD_FILES.authorizedKeys}`,
    'PubkeyAuthentication yes',
    'PasswordAuthentication no',
    'KbdInteractiveAuthentication no',
    'UsePAM no',
    'UseDNS no',
    'PrintLastLog no',
    'PermitUserRC no',
    'PermitUserEnvironment no',
    'AllowTcpForwarding no',
    'AllowStreamLocalForwarding no',
    'AllowAgentForwarding no',
    'X11Forwarding no',
    'PermitTunnel no',
    // Ansible opens many connections and sessions at a time.
    'MaxStartups 20:30:60',
    'MaxSessions 50',
    'ClientAliveInterval 30',
    // All clients come from one address, that of the port forwarder: one that fails must not lock out the others.
    ...(settings.release >= 9.8 ? ['PerSourcePenalties no'] : []),
    'Subsystem sftp internal-sftp',
    environment(settings),
    ...(settings.jail ? [`ChrootDirectory ${IMAGE_ROOT_IN_SHELL}`] : []),
    '',
  ].join('\n');
}

/** The release of OpenSSH from what `ssh -V` prints, as `OpenSSH_9.2p1 Debian-2+deb12u3, …`; 0 where it cannot be read. */
export function openSshRelease(version: string): number {
  const match = /OpenSSH_(\d+\.\d+)/.exec(version);
  return match ? Number(match[1]) : 0;
}
