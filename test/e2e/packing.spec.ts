import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { link, readFile, truncate, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { buildDemoImage, type DemoImage } from '../../src/quickstart/demo-image.js';
import type { JobView } from '../../src/quickstart/api.js';
import { System } from '../support/system.js';
import { asArchive, writeTar } from '../support/tar-archive.js';

/** Changes one file by a job, and waits for its image. */
async function customize(system: System, imageId: string, jail = false): Promise<JobView> {
  const { id } = await system.startJob(imageId, await system.addKey(), { ssh_containers: [{ name: 'x', jail }] });
  const script = jail
    ? 'echo changed > /etc/motd; touch /tmp/complete'
    : 'echo changed > /mnt/image/image-root/etc/motd; touch /mnt/image/complete';
  await system.ssh(await system.waitFor(id, 'waiting_on_user'), script);
  return system.waitFor(id, 'success');
}

/** Nothing may differ from the source but what was changed, and what every image gets. */
async function expectOneChange(system: System, source: string, job: JobView): Promise<string> {
  const rootfs = await system.rootfsOf(job.resultant_image_id!);
  const others = (await system.differences(source, rootfs)).filter((line) => !/ (etc|tmp)\/$| etc\/cray\//.test(line));
  expect(others).toEqual(['>f+++++++++ etc/motd']);
  return rootfs;
}

/**
 * Takes the export table from an image, and says that there are more inodes than there are: the kernel asks for their number nowhere else,
 * and mounts it.
 */
async function countTooMany(image: string): Promise<void> {
  const [INODES, FLAGS, EXPORT_TABLE, EXPORTABLE] = [4, 24, 88, 0x80];
  const bytes = await readFile(image);
  bytes.writeUInt32LE(0x00ff_ffff, INODES);
  bytes.writeUInt16LE(bytes.readUInt16LE(FLAGS) & ~EXPORTABLE, FLAGS);
  bytes.fill(0xff, EXPORT_TABLE, EXPORT_TABLE + 8);
  await writeFile(image, bytes);
}

describe('a large image with a small change', () => {
  it('is copied on the side of the store, but for what changed', async () => {
    const system = await System.start();
    try {
      const source = await buildDemoImage(system.file('source'), {
        prepare: (root) => writeFile(path.join(root, 'opt/large'), randomBytes(48 << 20)),
      });
      const job = await customize(system, await system.addImage({ image: source }));
      expect(job.packing).toMatchObject({ method: 'delta' });
      await expectOneChange(system, source.rootfs, job);
      const log = await system.jobLog(job.id);
      const [, bytes, sent] = /the rootfs is stored bytes=(\d+) bytes_sent=(\d+)/.exec(log)!;
      expect(Number(bytes)).toBeGreaterThan(48 << 20);
      expect(Number(sent)).toBeLessThan(24 << 20);
    } finally {
      await system.stop();
    }
  }, 120_000);
});

describe('a rootfs that is a tar archive', () => {
  let system: System;
  let source: DemoImage;
  beforeAll(async () => {
    system = await System.start();
    source = await buildDemoImage(system.file('source'), {
      prepare: async (root) => {
        const at = (name: string) => path.join(root, 'opt', name);
        await writeFile(at('file'), 'x');
        await link(at('file'), at('linked'));
        await truncate(at('file'), 100_000);
        execFileSync('setfattr', ['-n', 'user.color', '-v', 'blue', at('linked')]);
        execFileSync('setcap', ['cap_net_raw+ep', path.join(root, 'bin/busybox')]);
        execFileSync('mkfifo', [at('fifo')]);
      },
    });
  }, 60_000);
  afterAll(() => system.stop());

  it.each([
    { jail: false, options: '--zstd' },
    { jail: true, options: '--gzip --sparse' },
  ])(
    'is customized like any other: jail $jail, $options',
    async ({ jail, options }) => {
      const image = asArchive(source, system.file(`rootfs-${jail}`), options);
      const job = await customize(system, await system.addImage({ image }), jail);
      expect(job.packing).toMatchObject({ method: 'full', bytes_reused: 0 });
      const rootfs = await expectOneChange(system, source.rootfs, job);
      const capabilities =
        'getcap -r "$A" "$B"; stat -c "%h %t:%T %a" "$A"/opt/linked "$A"/dev/null "$B"/opt/linked "$B"/dev/null';
      const { stdout } = await system.withMounted([source.rootfs, rootfs], capabilities);
      expect(stdout.match(/busybox cap_net_raw=ep/g)).toHaveLength(2);
      expect(stdout.match(/2 0:0 \d+/g)).toHaveLength(2);
      expect(stdout.match(/1 1:3 666/g)).toHaveLength(2);
      // As mksquashfs packs where nobody says otherwise.
      expect(execFileSync('unsquashfs', ['-stat', rootfs]).toString()).toContain('Compression gzip');
    },
    60_000,
  );

  it('ends the job with the reason where it holds what it must not', async () => {
    const rootfs = await writeTar(system.file('hostile'), [
      { name: 'lib', type: 'symlink', linkname: '/tmp' },
      { name: 'lib/x', content: 'x' },
    ]);
    const { id } = await system.startJob(
      await system.addImage({ image: { ...source, rootfs } }),
      await system.addKey(),
    );
    const { status_reason } = await system.waitFor(id, 'error');
    expect(status_reason).toBe(
      'the rootfs of the source image holds files below "lib", which is a link: files must stand in directories',
    );
  }, 60_000);
});

describe('what cannot be packed from the blocks of its source', () => {
  let system: System;
  beforeEach(async () => {
    system = await System.start({ JOB_SQUASHFS_COMPRESSION: 'zstd' });
  }, 60_000);
  afterEach(() => system.stop());

  it('is packed whole: a source whose tables only the kernel can make sense of', async () => {
    const source = await buildDemoImage(system.file('source'), { compression: 'zstd' });
    await countTooMany(source.rootfs);
    const job = await customize(system, await system.addImage({ image: source }));
    expect(job.packing).toMatchObject({ method: 'full', bytes_reused: 0 });
    expect(await system.jobLog(job.id)).toMatch(/all of it is packed.*fewer inodes than it says/);
    await expectOneChange(system, source.rootfs, job);
  }, 60_000);

  it('is packed whole: an image of another compression than its source', async () => {
    const source = await buildDemoImage(system.file('source'), { compression: 'gzip' });
    const job = await customize(system, await system.addImage({ image: source }));
    expect(job.packing).toMatchObject({ method: 'full', bytes_reused: 0 });
    const rootfs = await expectOneChange(system, source.rootfs, job);
    expect(execFileSync('unsquashfs', ['-stat', rootfs]).toString()).toContain('Compression zstd');
  }, 60_000);
});
