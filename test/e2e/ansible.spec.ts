import { writeFile } from 'node:fs/promises';
import { execFile } from 'node:child_process';
import { copyFile, mkdir, rm, symlink } from 'node:fs/promises';
import path from 'node:path';
import { promisify } from 'node:util';
import { expectPlayed, play } from '../support/ansible.js';
import { System } from '../support/system.js';

const run = promisify(execFile);

/**
 * A small Debian with Python, of 70 MB: what images of real nodes are made of.
 * @returns the files of the image
 */
async function buildDebianImage(directory: string) {
  await mkdir(directory);
  const root = path.join(directory, 'root');
  const packages = '--include=python3-minimal,libpython3-stdlib';
  await run('mmdebstrap', ['--quiet', '--mode=root', '--variant=minbase', packages, 'bookworm', root], {
    maxBuffer: 64 << 20,
  });
  const at = (name: string) => path.join(directory, name);
  await writeFile(at('kernel'), 'a kernel');
  await writeFile(at('initrd'), 'an initrd');
  await writeFile(at('bootParameters'), 'quiet');
  await copyFile(at('kernel'), path.join(root, 'boot/vmlinuz-6'));
  await symlink('vmlinuz-6', path.join(root, 'boot/vmlinuz'));
  await copyFile(at('initrd'), path.join(root, 'boot/initrd'));
  await run('mksquashfs', [root, at('rootfs'), '-comp', 'zstd', '-Xcompression-level', '1', '-quiet', '-no-progress']);
  await rm(root, { recursive: true });
  return { rootfs: at('rootfs'), kernel: at('kernel'), initrd: at('initrd'), bootParameters: at('bootParameters') };
}

let system: System;
let keyId: string;

beforeAll(async () => {
  system = await System.start();
  keyId = await system.addKey();
}, 60_000);
afterAll(() => system.stop());

async function playAgainst(imageId: string, jail: boolean): Promise<string> {
  const { id } = await system.startJob(imageId, keyId, { ssh_containers: [{ jail }] });
  await play(system, await system.waitFor(id, 'waiting_on_user'), jail);
  return (await system.waitFor(id, 'success')).resultant_image_id!;
}

it('plays against the environment of a tiny image', async () => {
  await expectPlayed(system, await playAgainst(await system.addImage(), false));
}, 180_000);

describe('against a Debian image', () => {
  let imageId: string;

  beforeAll(async () => {
    imageId = await system.addImage({ image: await buildDebianImage(system.file('debian')) });
  }, 300_000);

  it('plays in a jail', async () => expectPlayed(system, await playAgainst(imageId, true)), 180_000);

  it('installs packages, as root of the image', async () => {
    const { id } = await system.startJob(imageId, keyId, { ssh_containers: [{ jail: true }] });
    const job = await system.waitFor(id, 'waiting_on_user');
    const script = [
      'set -e',
      'mkdir -p /tmp/p/DEBIAN /tmp/p/opt/packaged',
      'printf "Package: ims-probe\\nVersion: 1\\nArchitecture: all\\nMaintainer: x <x@example.org>\\nDescription: x\\n" > /tmp/p/DEBIAN/control',
      'printf "#!/bin/sh\\nchown 33:33 /opt/packaged\\nuseradd -m prober\\n" > /tmp/p/DEBIAN/postinst',
      'chmod 755 /tmp/p/DEBIAN/postinst',
      'dpkg-deb --root-owner-group -b /tmp/p /tmp/p.deb',
      'dpkg -i /tmp/p.deb',
      'su prober -s /bin/sh -c id',
      'rm -r /tmp/p /tmp/p.deb',
      'touch /tmp/complete',
    ].join('\n');
    // The last command may find its connection closed.
    expect((await system.ssh(job, script)).stdout).toContain('(prober)');
    const { resultant_image_id } = await system.waitFor(id, 'success');
    const rootfs = await system.rootfsOf(resultant_image_id!);
    const { stdout } = await system.withMounted(
      [rootfs],
      'stat -c %u:%g "$A/opt/packaged"; grep prober "$A/etc/passwd"; ls "$A/home"; chroot "$A" dpkg --verify',
    );
    expect(stdout).toMatch(/^33:33\nprober:x:1000:1000::\/home\/prober:\/bin\/sh\nprober\n$/);
  }, 120_000);
});
