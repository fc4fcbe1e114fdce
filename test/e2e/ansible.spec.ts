import { writeFile } from 'node:fs/promises';
import { execFile } from 'node:child_process';
import { copyFile, mkdir, rm, symlink } from 'node:fs/promises';
import path from 'node:path';
import { promisify } from 'node:util';
import type { JobView } from '../../src/quickstart/api.js';
import { command, System } from '../support/system.js';

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

/** The sample playbook of the procedure, in a form that every image can run. */
function playbook(root: string, complete: string, chroot: string): string {
  return `
- hosts: all
  gather_facts: true
  tasks:
    - name: look at the image root
      command: ls -l ${root}/
    - name: run a command of the image
      command: ${chroot} /bin/sh -c "echo of the image > /opt/by-command"
    - name: copy a file with owner and permissions
      copy: { content: "copied\\n", dest: ${root}/opt/by-copy, owner: "1234", group: "4321", mode: "0640" }
    - name: write a file from a template
      template: { src: template.j2, dest: ${root}/opt/by-template }
    - name: make a directory
      file: { path: ${root}/opt/by-file, state: directory, mode: "2775" }
    - name: exit the build container
      copy: { content: "", dest: ${complete} }
`;
}

let system: System;
let keyId: string;

beforeAll(async () => {
  system = await System.start();
  keyId = await system.addKey();
}, 60_000);
afterAll(() => system.stop());

async function ansible(job: JobView, program: 'ansible' | 'ansible-playbook', ...args: string[]) {
  const { options, host, port } = await system.sshOptions(job);
  const inventory = system.file('inventory');
  const common = options.join(' ');
  await writeFile(
    inventory,
    `image ansible_host=${host} ansible_port=${port} ansible_user=root ansible_python_interpreter=/usr/bin/python3 ansible_ssh_common_args='${common}'\n`,
  );
  const env = { ANSIBLE_LOCAL_TEMP: system.file('ansible'), HOME: system.directory, LC_ALL: 'C.UTF-8' };
  return command(program, ['-i', inventory, ...args], { env, timeout: 120_000, cwd: system.directory });
}

async function playAgainst(imageId: string, jail: boolean): Promise<string> {
  const [root, chroot] = jail ? ['', ''] : ['/mnt/image/image-root', 'chroot /mnt/image/image-root'];
  const started = await system.startJob(imageId, keyId, { ssh_containers: [{ jail }] });
  const job = await system.waitFor(started.id, 'waiting_on_user');
  expect((await ansible(job, 'ansible', 'all', '-m', 'ping')).stdout).toContain('"ping": "pong"');
  await writeFile(system.file('template.j2'), 'made for {{ ansible_architecture }}\n');
  await writeFile(system.file('play.yml'), playbook(root!, jail ? '/tmp/complete' : '/mnt/image/complete', chroot!));
  const { stdout } = await ansible(job, 'ansible-playbook', system.file('play.yml'));
  // The last task may lose its connection: the shell closes as soon as the file is there.
  expect(stdout).toMatch(/make a directory.*\n+changed/);
  return (await system.waitFor(job.id, 'success')).resultant_image_id!;
}

async function expectPlayed(imageId: string): Promise<void> {
  const script =
    'cd "$A/opt"; head by-command by-copy by-template; stat -c "%n %a %u:%g" by-copy by-file; ls -A "$A/root" "$A/tmp"';
  const { stdout } = await system.withMounted([await system.rootfsOf(imageId)], script);
  expect(stdout).toContain('==> by-command <==\nof the image\n');
  expect(stdout).toContain('==> by-copy <==\ncopied\n');
  expect(stdout).toContain('==> by-template <==\nmade for x86_64\n');
  expect(stdout).toContain('by-copy 640 1234:4321\n');
  expect(stdout).toContain('by-file 2775 0:0\n');
}

it('plays against the environment of a tiny image', async () => {
  await expectPlayed(await playAgainst(await system.addImage(), false));
}, 180_000);

describe('against a Debian image', () => {
  let imageId: string;

  beforeAll(async () => {
    imageId = await system.addImage({ image: await buildDebianImage(system.file('debian')) });
  }, 300_000);

  it('plays in a jail', async () => expectPlayed(await playAgainst(imageId, true)), 180_000);

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
