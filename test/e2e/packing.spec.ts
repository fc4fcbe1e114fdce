import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { buildDemoImage } from '../../src/quickstart/demo-image.js';
import type { JobView } from '../../src/quickstart/api.js';
import { System } from '../support/system.js';

/** Changes one file by a job, and waits for its image. */
async function customize(system: System, imageId: string): Promise<JobView> {
  const { id } = await system.startJob(imageId, await system.addKey());
  const script = 'echo changed > /mnt/image/image-root/etc/motd; touch /mnt/image/complete';
  await system.ssh(await system.waitFor(id, 'waiting_on_user'), script);
  return system.waitFor(id, 'success');
}

async function expectOneChange(system: System, source: string, job: JobView): Promise<string> {
  const rootfs = await system.rootfsOf(job.resultant_image_id!);
  const files = (await system.differences(source, rootfs)).filter((line) => /^[>h]f/.test(line));
  expect(files.filter((line) => !line.includes('certificate_authority'))).toEqual(['>f+++++++++ etc/motd']);
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

describe('what cannot be packed from the blocks of its source', () => {
  let system: System;
  beforeEach(async () => {
    system = await System.start({ JOB_SQUASHFS_COMPRESSION: 'zstd' });
  }, 60_000);
  afterEach(() => system.stop());

  it('is packed by mksquashfs: a source whose tables only the kernel can make sense of', async () => {
    const source = await buildDemoImage(system.file('source'), { compression: 'zstd' });
    await countTooMany(source.rootfs);
    const job = await customize(system, await system.addImage({ image: source }));
    expect(job.packing).toMatchObject({ method: 'full', bytes_reused: 0 });
    expect(await system.jobLog(job.id)).toMatch(/mksquashfs packs all of it.*fewer inodes than it says/);
    await expectOneChange(system, source.rootfs, job);
  }, 60_000);

  it('is packed by mksquashfs: an image of another compression than its source', async () => {
    const source = await buildDemoImage(system.file('source'), { compression: 'gzip' });
    const job = await customize(system, await system.addImage({ image: source }));
    expect(job.packing).toMatchObject({ method: 'full', bytes_reused: 0 });
    const rootfs = await expectOneChange(system, source.rootfs, job);
    expect(execFileSync('unsquashfs', ['-stat', rootfs]).toString()).toContain('Compression zstd');
  }, 60_000);
});
