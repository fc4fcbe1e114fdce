import { execFileSync } from 'node:child_process';
import { mkdir, readFile, rename, rm, symlink, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { findLocation, linkPath } from '../../src/protocol/artifact-link.js';
import type { ImageManifest } from '../../src/protocol/image-manifest.js';
import { buildDemoImage } from '../../src/quickstart/demo-image.js';
import { BUCKET, System } from '../support/system.js';

let system: System;
let keyId: string;

beforeAll(async () => {
  system = await System.start();
  keyId = await system.addKey();
}, 60_000);
afterAll(() => system.stop());

/** Runs a job on an image to its end in error; the shell, where it comes so far, is complete at once. */
async function reasonOf(imageId: string, more: object = {}, script?: string): Promise<string> {
  const { id } = await system.startJob(imageId, keyId, more);
  if (script !== undefined) await system.ssh(await system.waitFor(id, 'waiting_on_user'), script);
  const job = await system.waitFor(id, 'error');
  expect(job.resultant_image_id).toBeNull();
  await system.api.request('DELETE', `/jobs/${id}`);
  await system.expectNoTraces(id);
  return job.status_reason!;
}

/** Replaces the manifest of an image; the record keeps its link. */
async function changeManifest(imageId: string, change: (manifest: ImageManifest) => unknown): Promise<void> {
  const manifest = await system.manifestOf(imageId);
  const body = Buffer.from(JSON.stringify(change(manifest) ?? manifest));
  await system.store.put({ bucket: BUCKET, key: `${imageId}/manifest.json` }, { body });
}

/** What is in the store and in the records before and after must be the same. */
async function expectNothingHalfMade(work: () => Promise<void>): Promise<void> {
  const images = () => system.api.request<{ id: string }[]>('GET', '/images');
  const before = [await system.artifacts(), await images()];
  await work();
  expect([await system.artifacts(), await images()]).toEqual(before);
}

describe('before the job', () => {
  it('an image without a link is refused', async () => {
    const { id } = await system.api.request<{ id: string }>('POST', '/images', { name: 'bare', arch: 'x86_64' });
    await expect(system.startJob(id, keyId)).rejects.toThrow(/link/);
  });

  it('a manifest without a rootfs is refused', async () => {
    const id = await system.addImage();
    await changeManifest(id, (manifest) => void manifest.artifacts.shift());
    await expect(system.startJob(id, keyId)).rejects.toThrow(/rootfs/);
  });

  it('a rootfs that is not in the store is refused', async () => {
    const id = await system.addImage();
    await system.store.remove({ bucket: BUCKET, key: `${id}/rootfs` });
    await expect(system.startJob(id, keyId)).rejects.toThrow(/rootfs/);
  });

  it.each([
    ['no JSON', Buffer.from('{')],
    ['a list', Buffer.from('[]')],
    ['another version', Buffer.from('{"version":"2.0","artifacts":[]}')],
  ])('a manifest that is %s is refused', async (_what, body) => {
    const id = await system.addImage();
    await system.store.put({ bucket: BUCKET, key: `${id}/manifest.json` }, { body });
    await expect(system.startJob(id, keyId)).rejects.toThrow(/manifest/);
  });
});

describe('in the job', () => {
  it('an md5 that does not match ends it', async () => {
    const id = await system.addImage();
    const wrong = 'd41d8cd98f00b204e9800998ecf8427e';
    await changeManifest(id, ({ artifacts }) => void (artifacts[0]!.md5 = wrong));
    const location = { bucket: BUCKET, key: `${id}/rootfs` };
    const [rootfs] = (await system.manifestOf(id)).artifacts;
    const body = { file: await system.download(rootfs!.link.path) };
    // What stands at the artifact itself counts more than the manifest: it has to be gone.
    execFileSync('python3', ['-c', BOTO3_PUT, system.storeUrl, location.bucket, location.key, body.file]);
    expect(await reasonOf(id)).toMatch(new RegExp(`has the md5 [0-9a-f]{32}, but its manifest says ${wrong}`));
  });

  it('a rootfs that is no SquashFS image ends it', async () => {
    const image = await buildDemoImage(system.file('tar'));
    await writeFile(image.rootfs, 'not a file system at all');
    expect(await reasonOf(await system.addImage({ image }))).toContain('is not a SquashFS image');
  });

  it('a rootfs that was cut off ends it', async () => {
    const image = await buildDemoImage(system.file('cut'));
    const whole = await readFile(image.rootfs);
    await writeFile(image.rootfs, whole.subarray(0, whole.length / 2));
    expect(await reasonOf(await system.addImage({ image }))).toContain('is cut off');
  });

  it('a rootfs whose tables are damaged ends it', async () => {
    const image = await buildDemoImage(system.file('damaged'));
    const whole = await readFile(image.rootfs);
    await writeFile(image.rootfs, whole.fill(0xff, 96));
    expect(await reasonOf(await system.addImage({ image }))).toMatch(/neither be mounted nor unpacked/);
  });

  it.each([
    ['kernel', { kernel_file_name: 'bzImage' }, /no kernel \/boot\/bzImage; \/boot holds initrd, initrd-1, .*vmlinuz/],
    ['initrd', { initrd_file_name: 'initramfs' }, /no initrd \/boot\/initramfs; \/boot holds/],
  ])('a missing %s ends it, and says what /boot holds', async (_what, more, reason) => {
    const id = await system.addImage();
    await expectNothingHalfMade(async () => {
      expect(await reasonOf(id, more, 'touch /mnt/image/complete')).toMatch(reason);
    });
  });

  it('an image without /boot ends it', async () => {
    const id = await system.addImage();
    const script = 'rm -r /mnt/image/image-root/boot && touch /mnt/image/complete';
    expect(await reasonOf(id, {}, script)).toContain('there is no /boot');
  });

  it.each([
    ['a directory', 'rm vmlinuz && mkdir vmlinuz'],
    ['a fifo', 'rm vmlinuz && mkfifo vmlinuz'],
  ])('a kernel that is %s ends it', async (_what, script) => {
    const id = await system.addImage();
    const all = `cd /mnt/image/image-root/boot && ${script} && touch /mnt/image/complete`;
    expect(await reasonOf(id, {}, all)).toContain('is not a regular file');
  });

  it('a file in the way of the CA certificate ends it', async () => {
    const prepare = (root: string) => writeFile(path.join(root, 'etc/cray'), 'in the way');
    expect(await reasonOf(await system.addImage({ prepare }))).toContain('something else stands in its way');
  });

  it('an image without a shell ends a jailed job', async () => {
    const prepare = async (root: string) => {
      await rm(path.join(root, 'bin/sh'), { force: true });
      await rename(path.join(root, 'bin'), path.join(root, 'elsewhere'));
      await mkdir(path.join(root, 'bin'));
    };
    const id = await system.addImage({ prepare });
    expect(await reasonOf(id, { ssh_containers: [{ jail: true }] })).toContain('neither /bin/bash nor /bin/sh');
  });

  it('a shell whose sshd is ended by its user ends it', async () => {
    expect(await reasonOf(await system.addImage(), {}, 'kill 1; sleep 5')).toContain('the sshd of the shell was ended');
  });
});

it('links of the image lead nowhere else', async () => {
  const prepare = async (root: string) => {
    await rm(path.join(root, 'boot/vmlinuz'));
    await symlink('/etc/passwd', path.join(root, 'boot/vmlinuz'));
    await rm(path.join(root, 'boot/initrd'));
    await symlink('../../../../../../etc/hostname', path.join(root, 'boot/initrd'));
  };
  const { id } = await system.startJob(await system.addImage({ prepare }), keyId);
  await system.ssh(await system.waitFor(id, 'waiting_on_user'), 'touch /mnt/image/complete');
  const { resultant_image_id } = await system.waitFor(id, 'success');
  const [, kernel, initrd] = (await system.manifestOf(resultant_image_id!)).artifacts;
  expect(await readFile(await system.download(kernel!.link.path), 'utf8')).toBe('root:x:0:0:root:/root:/bin/sh\n');
  expect(await readFile(await system.download(initrd!.link.path), 'utf8')).toBe('demo\n');
});

it('a rootfs that goes while the job waits is no loss', async () => {
  const imageId = await system.addImage();
  const { id } = await system.startJob(imageId, keyId);
  const job = await system.waitFor(id, 'waiting_on_user');
  await system.store.remove(findLocation(linkPath({ bucket: BUCKET, key: `${imageId}/rootfs` }))!);
  await system.ssh(job, 'touch /mnt/image/complete');
  await system.waitFor(id, 'success');
});

/** Stores an object without our metadata, as other clients do. */
const BOTO3_PUT = `
import boto3, sys
from botocore.client import Config
endpoint, bucket, key, name = sys.argv[1:]
client = boto3.client('s3', endpoint_url=endpoint, aws_access_key_id='test-access', aws_secret_access_key='test-secret', region_name='us-east-1')
client.put_object(Bucket=bucket, Key=key, Body=open(name, 'rb').read())
`;
