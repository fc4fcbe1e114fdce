import { lstatSync } from 'node:fs';
import { mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { dirname } from 'node:path';
import type { HostKey } from '../../protocol/job-report.js';
import { IMAGE_ROOT_IN_SHELL } from '../../protocol/signals.js';
import { CA_CERTIFICATE } from '../ca-certificate.js';
import type { Commands } from '../commands.js';
import type { MountedRoot } from '../image-root.js';
import { makeHostKey } from '../sandbox/host-key.js';
import { SSHD_FILES, SSHD_PORT } from '../sandbox/sshd-config.js';
import { loginShellOf, type ShellContext, type ShellEnvironment, sshdConfigOf } from '../shell-environment.js';
import type { Teardown } from '../teardown.js';
import { endOthers, hasOthers, refuseOutsideOfContainer } from './container-processes.js';

/** A shell in a container that was made for it: the pod is the sandbox, and the container's own system is what the user sees. */
export const podShell: ShellEnvironment = {
  resolvConf: () => readFile('/etc/resolv.conf', 'utf8'),

  async open(context, root, teardown) {
    const { job, commands, log } = context;
    refuseOutsideOfContainer();
    const mounted = await root.mountPlain();
    teardown.add(() => mounted.unmount());
    if (root.kind === 'overlay') await showImageRoot(mounted, commands, teardown);
    const hostKey = await fillContainer(context, mounted);
    const sshd = await commands.start('/usr/sbin/sshd', ['-D', '-e', '-f', SSHD_FILES.config], {
      onLine: (line) => log('sshd', { line }),
    });
    teardown.add(() => endOthers());
    return {
      hostKey,
      listenAddress: '127.0.0.1',
      port: SSHD_PORT,
      seen: job.shell.jail ? mounted.path : '/',
      ended: sshd.ended,
      isUsed: () => hasOthers(sshd.pid),
    };
  },
};

/** Puts a mounted image root where the user expects it, with what programs in it need. An unpacked one is there already. */
async function showImageRoot({ path }: MountedRoot, commands: Commands, teardown: Teardown): Promise<void> {
  await commands.run('mount', ['--bind', path, IMAGE_ROOT_IN_SHELL]);
  // Also what the user mounts below it.
  teardown.add(() => commands.run('umount', ['--recursive', '--lazy', IMAGE_ROOT_IN_SHELL]));
  for (const name of ['proc', 'dev']) {
    const point = `${IMAGE_ROOT_IN_SHELL}/${name}`;
    if (lstatSync(point, { throwIfNoEntry: false })?.isDirectory())
      await commands.run('mount', ['--rbind', `/${name}`, point]);
  }
}

/** Readies the container's own system for sshd; returns the public key that it answers with. */
async function fillContainer({ job, commands }: ShellContext, root: MountedRoot): Promise<HostKey> {
  const files: [path: string, content: string, mode: number][] = [
    [SSHD_FILES.config, await sshdConfigOf(job, 'any', commands), 0o600],
    [SSHD_FILES.authorizedKeys, `${job.public_key.trim()}\n`, 0o600],
  ];
  if (job.ca_certificate) files.push([CA_CERTIFICATE, job.ca_certificate, 0o644]);
  for (const [path, content, mode] of files) {
    await mkdir(dirname(path), { recursive: true });
    await writeFile(path, content, { mode });
  }
  await mkdir('/run/sshd', { recursive: true, mode: 0o755 });
  await commands.run('usermod', ['--shell', loginShellOf(job, root.path), 'root']);
  await rm(SSHD_FILES.hostKey, { force: true });
  return makeHostKey(SSHD_FILES.hostKey, commands);
}
