import { access, appendFile, copyFile, mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { JobDirectory } from '../job-directory.js';
import { mount, MOUNT } from '../linux.js';

/** Where a build sees the job directory: at a path without odd characters, and the same for all jobs. */
export const BUILD_PLACE = '/var/tmp/image';

/**
 * Builds never need these, however much their scripts are root: kernel modules are built, not loaded, and the machine stays as it is.
 */
const FORBIDDEN_CAPABILITIES = [
  'audit_control',
  'bpf',
  'mac_admin',
  'mac_override',
  'net_admin',
  'perfmon',
  'sys_boot',
  'sys_module',
  'sys_pacct',
  'sys_rawio',
  'sys_time',
  'syslog',
  'wake_alarm',
];

/**
 * Arguments of unshare in front of KIWI-NG and programs of the new root: neither they nor scripts of the recipe see this process, whose
 * environment holds keys, or its mounts; and whatever they leave running or mounted goes with them.
 */
export const CONFINED: readonly string[] = [
  '--mount',
  '--propagation',
  'private',
  '--pid',
  '--fork',
  '--kill-child=KILL',
  '--mount-proc',
  '--',
  'setpriv',
  '--bounding-set',
  FORBIDDEN_CAPABILITIES.map((name) => `-${name}`).join(','),
  '--',
];

/** Directories of the machine that package managers write to when they work on another root; builds get others in their place. */
const REPLACED = ['/var/tmp', '/var/log', '/var/cache', '/root'];
/** Certificates that are trusted, where curl and GnuTLS look for them. */
export const CA_BUNDLES: readonly string[] = ['/etc/ssl/certs/ca-certificates.crt', '/etc/ssl/ca-bundle.pem'];
/** Debian's rpm keeps its database in a home directory; that of an image has its own place. */
const RPM_MACROS = '%_dbpath /var/lib/rpm\n';

/**
 * Makes the machine around this process fit for a build: what a build writes beside its root goes to the job directory, and the site CA
 * is trusted. Everything is mounted in the mount namespace of this process, and goes with it.
 * @param caCertificate PEM; null for none
 */
export async function enterBuildPlace(directory: JobDirectory, caCertificate: string | null): Promise<void> {
  if (caCertificate) await trust(directory, caCertificate);
  const scratch = (path: string) => join(directory.scratch, path);
  for (const path of REPLACED) await mkdir(scratch(path), { recursive: true });
  await mkdir(scratch(BUILD_PLACE), { recursive: true });
  await writeFile(scratch('/root/.rpmmacros'), RPM_MACROS);
  mount(directory.path, scratch(BUILD_PLACE), '', MOUNT.bind);
  for (const path of REPLACED) mount(scratch(path), path, '', MOUNT.bind | MOUNT.recursive);
}

async function trust(directory: JobDirectory, caCertificate: string): Promise<void> {
  await mkdir(directory.scratch, { recursive: true });
  for (const [index, bundle] of CA_BUNDLES.entries()) {
    if (!(await exists(bundle))) continue;
    const extended = join(directory.scratch, `trusted-${index}.pem`);
    await copyFile(bundle, extended);
    await appendFile(extended, `\n${caCertificate}\n`);
    mount(extended, bundle, '', MOUNT.bind);
  }
}

async function exists(file: string): Promise<boolean> {
  return access(file).then(
    () => true,
    () => false,
  );
}
