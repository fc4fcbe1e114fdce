import { createServer, type Server } from 'node:net';
import { networkInterfaces } from 'node:os';
import { writeFile } from 'node:fs/promises';
import path from 'node:path';
import type { JobView } from '../../src/quickstart/api.js';
import { System } from '../support/system.js';

/** Names that would do harm where somebody pasted them into a shell, a configuration file or a header. */
const NASTY = `"; touch /tmp/ims-pwned #' $(touch /tmp/ims-pwned) \`touch /tmp/ims-pwned\`\nPermitEmptyPasswords yes\n日本`;

let system: System;
let imageId: string;
let keyId: string;
/** Listens on all addresses of this machine, as careless services do. */
let careless: Server;

beforeAll(async () => {
  system = await System.start();
  const prepare = (root: string) => writeFile(path.join(root, 'opt/disk'), '');
  imageId = await system.addImage({ prepare, name: NASTY });
  keyId = await system.addKey();
  careless = createServer((socket) => socket.end('reached')).listen(0, '0.0.0.0');
}, 60_000);
afterAll(async () => {
  careless.close();
  await system.stop();
});

const ownAddresses = () =>
  Object.values(networkInterfaces()).flatMap((all) =>
    (all ?? []).filter(({ family, internal }) => family === 'IPv4' && !internal).map(({ address }) => address),
  );

describe.each([{ jail: false }, { jail: true }])('a shell, jail $jail', ({ jail }) => {
  let job: JobView;

  beforeAll(async () => {
    const { id } = await system.startJob(imageId, keyId, {
      ssh_containers: [{ jail }],
      image_root_archive_name: NASTY,
    });
    job = await system.waitFor(id, 'waiting_on_user');
  }, 60_000);

  /** Whether the probe got what it wanted. */
  const gets = async (probe: string) => (await system.ssh(job, probe)).code === 0;

  it.each<[string, () => string]>([
    ['signal a process of the host', () => `kill -0 ${process.pid}`],
    ['signal the server', () => `kill -0 ${system.serverPid}`],
    ['see processes of the host', () => `ps ax 2>/dev/null | grep -q "[d]ist/src/main.js"`],
    ['read the state directory', () => `ls ${system.directory}`],
    ['read the shadow file of the host', () => `grep -q : /proc/1/root/etc/shadow-`],
    ['change a sysctl', () => ': >> /proc/sys/kernel/panic'],
    ['press a magic key', () => 'echo h > /proc/sysrq-trigger'],
    ['make a device', () => 'mknod /tmp/disk b 254 0'],
    ['read kernel messages', () => 'dmesg | grep -q .'],
    ['set the clock', () => 'date -s "$(date)"'],
    ['load a module', () => 'echo x > /tmp/x.ko; insmod /tmp/x.ko 2>&1 | grep -qve permitted -e "not found"'],
    ['make a user namespace', () => 'unshare --user true || unshare -U true'],
    ['change the programs of the host', () => (jail ? 'false' : 'touch /usr/ims-probe')],
    ['see devices of the host', () => 'ls /dev/vda /dev/sda /dev/loop0 /dev/mem 2>/dev/null | grep -q .'],
    ['enter namespaces of the host', () => 'nsenter --target 1 --mount --all ls /work'],
  ])('cannot %s', async (_what, probe) => {
    expect(await gets(probe())).toBe(false);
  });

  it('reaches no service on the loopback of this machine, nor on its addresses', async () => {
    const { port } = careless.address() as { port: number };
    const ports = [new URL(system.url).port, new URL(system.storeUrl).port, String(port)];
    for (const address of ['127.0.0.1', '10.0.2.2', ...ownAddresses()])
      for (const one of ports) {
        const { stdout } = await system.ssh(
          job,
          `printf 'GET / HTTP/1.0\\r\\n\\r\\n' | timeout 2 ${netcat(jail)} ${address} ${one}`,
        );
        expect(`${address}:${one} ${stdout}`).toBe(`${address}:${one} `);
      }
  }, 60_000);

  it('has devices of its own', async () => {
    const { stdout } = await system.ssh(
      job,
      'ls /dev | sort | tr "\\n" " "; echo x > /dev/null && head -c 4 /dev/urandom | wc -c',
    );
    expect(stdout).toBe('fd full null ptmx pts random shm stderr stdin stdout tty urandom zero 4\n');
  });

  it('cannot run away with processes', async () => {
    expect((await system.ssh(job, 'ulimit -u')).stdout).toBe('8192\n');
  });

  it('takes names as they are', async () => {
    expect(job.image_root_archive_name).toBe(NASTY);
    const root = jail ? '/' : '/mnt/image/image-root';
    const made = await system.ssh(job, `cd ${root}/opt && touch "a\nb" '$(reboot)' "it's" ./-rf '日本'`);
    expect(made).toMatchObject({ code: 0, stderr: '' });
    await system.ssh(job, jail ? 'touch /tmp/complete' : 'touch /mnt/image/complete');
    const { resultant_image_id } = await system.waitFor(job.id, 'success');
    const { name } = await system.api.request<{ name: string }>('GET', `/images/${resultant_image_id}`);
    expect(name).toBe(NASTY);
    const rootfs = await system.rootfsOf(resultant_image_id!);
    const { stdout } = await system.withMounted(
      [rootfs],
      'ls -1 --quoting-style=c "$A/opt"; ls /tmp/ims-pwned 2>&1 || true',
    );
    expect(stdout).toMatch(/^"\$\(reboot\)"\n"-rf"\n"a\\nb"\n"disk"\n"it's"\n/);
    expect(stdout).toContain('No such file');
  });
});

/** busybox has a netcat; outside of the jail bash does it. */
function netcat(jail: boolean): string {
  return jail ? 'nc' : `bash -c 'exec 3<>/dev/tcp/$0/$1 && cat >&3 & exec 4<>/dev/tcp/$0/$1 && cat <&4'`;
}
