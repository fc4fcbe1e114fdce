import { chmod, copyFile, lstat, mkdir, readlink, symlink, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import type { HostKey } from '../../protocol/job-report.js';
import { IMAGE_ROOT_IN_SHELL } from '../../protocol/signals.js';
import { CA_CERTIFICATE } from '../ca-certificate.js';
import type { Commands } from '../commands.js';
import type { IdRange } from '../id-range.js';
import { makeHostKey } from './host-key.js';
import { SSHD_FILES } from './sshd-config.js';

export interface BoxSettings {
  /** Shell of root; it must be there in the jail, where there is one. */
  loginShell: string;
  hostName: string;
  sshdConfig: string;
  authorizedKeys: string;
  resolvConf: string;
  caCertificate: string | null;
}

/** Directories, and their modes. Those that stay empty are mount points. */
const DIRECTORIES: Readonly<Record<string, number>> = {
  etc: 0o755,
  'etc/alternatives': 0o755,
  'etc/cray/ca': 0o755,
  'etc/cray/ims': 0o755,
  'etc/ssh': 0o755,
  'etc/ssl/certs': 0o755,
  usr: 0o755,
  proc: 0o755,
  sys: 0o755,
  dev: 0o755,
  run: 0o755,
  home: 0o755,
  root: 0o700,
  tmp: 0o1777,
  var: 0o755,
  'var/tmp': 0o1777,
  'var/lib': 0o755,
  'var/log': 0o755,
  mnt: 0o755,
  'mnt/image': 0o755,
  [IMAGE_ROOT_IN_SHELL.slice(1)]: 0o755,
};

/** Links of the root to what is in /usr, where this machine has them. */
const USR_LINKS = ['bin', 'sbin', 'lib', 'lib32', 'lib64', 'libx32'];
/** Files of this machine that its programs read. */
const COPIES = ['ld.so.cache', 'ld.so.conf', 'localtime', 'os-release', 'debian_version', 'services', 'protocols'];

/**
 * Makes the root directory of the environment that a user lands in: what a container image would bring, made of this machine's programs
 * and an /etc of its own. Returns the public key of its sshd.
 */
export async function makeBox(box: string, settings: BoxSettings, ids: IdRange, commands: Commands): Promise<HostKey> {
  for (const [name, mode] of Object.entries(DIRECTORIES)) {
    await mkdir(join(box, name), { recursive: true });
    await chmod(join(box, name), mode);
  }
  await linkToUsr(box);
  await copySystemFiles(box);
  await writeFiles(box, settings);
  const hostKey = await makeHostKey(join(box, SSHD_FILES.hostKey), commands);
  await commands.run('chown', ['--recursive', '--no-dereference', `${ids.first}:${ids.first}`, box]);
  return hostKey;
}

async function linkToUsr(box: string): Promise<void> {
  for (const name of USR_LINKS) {
    const link = await lstat(`/${name}`).catch(() => null);
    if (link?.isSymbolicLink()) await symlink(await readlink(`/${name}`), join(box, name));
  }
}

async function copySystemFiles(box: string): Promise<void> {
  // What this machine lacks, its programs do not miss.
  for (const name of COPIES) await copyFile(`/etc/${name}`, join(box, 'etc', name)).catch(() => {});
}

async function writeFiles(box: string, settings: BoxSettings): Promise<void> {
  const files: [path: string, content: string, mode: number][] = [
    ['/etc/passwd', passwd(settings.loginShell), 0o644],
    ['/etc/group', 'root:x:0:\ntty:x:5:\nshadow:x:42:\nnogroup:x:65534:\n', 0o644],
    ['/etc/shadow', 'root:*:19000:0:99999:7:::\nsshd:*:19000:0:99999:7:::\n', 0o600],
    ['/etc/nsswitch.conf', 'passwd: files\ngroup: files\nshadow: files\nhosts: files dns\n', 0o644],
    ['/etc/hosts', `127.0.0.1 localhost\n127.0.1.1 ${settings.hostName}\n`, 0o644],
    ['/etc/hostname', `${settings.hostName}\n`, 0o644],
    ['/etc/resolv.conf', settings.resolvConf, 0o644],
    // sshd tells the user when it is missing.
    ['/var/log/lastlog', '', 0o644],
    [SSHD_FILES.config, settings.sshdConfig, 0o600],
    [SSHD_FILES.authorizedKeys, `${settings.authorizedKeys.trim()}\n`, 0o600],
  ];
  if (settings.caCertificate) files.push([CA_CERTIFICATE, settings.caCertificate, 0o644]);
  for (const [path, content, mode] of files) {
    await mkdir(dirname(join(box, path)), { recursive: true });
    await writeFile(join(box, path), content, { mode });
  }
}

function passwd(loginShell: string): string {
  return [
    `root:x:0:0:root:/root:${loginShell}`,
    '_apt:x:42:65534::/nonexistent:/usr/sbin/nologin',
    'sshd:x:100:65534::/run/sshd:/usr/sbin/nologin',
    'nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin',
    '',
  ].join('\n');
}
