import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { chmod, link, mkdir, readFile, stat, writeFile } from 'node:fs/promises';
import path from 'node:path';
import type { ImageManifest } from '../../src/protocol/image-manifest.js';
import { findLocation } from '../../src/protocol/artifact-link.js';
import type { JobView } from '../../src/quickstart/api.js';
import { buildDemoImage, type DemoImage } from '../../src/quickstart/demo-image.js';
import { STAGES } from '../../src/worker/squashfs/stopwatch.js';
import { System, until } from '../support/system.js';

/** Puts into an image what is easily lost on the way. */
async function addOddities(root: string): Promise<void> {
  const at = (name: string) => path.join(root, 'opt', name);
  await writeFile(at('one'), 'linked');
  await link(at('one'), at('two'));
  await writeFile(at('old'), 'goes');
  await writeFile(at('capable'), 'x');
  await chmod(at('capable'), 0o4755);
  await mkdir(at('dir ectory'));
  await writeFile(at('dir ectory/a\'\n$(reboot)"b'), 'odd');
  execFileSync('setfattr', ['-n', 'user.color', '-v', 'blue', at('one')]);
  execFileSync('setcap', ['cap_net_raw+ep', at('capable')]);
}

/** The changes of the story, as an administrator makes them who stands in the image root. */
const CHANGES = [
  'echo changed > etc/motd',
  "echo 'admin:x:1000:1000::/home:/bin/sh' >> etc/passwd",
  'rm opt/old',
  'echo more >> opt/two',
  'echo "#!/bin/sh" > opt/tool',
  'chmod 750 opt/tool',
  'chown 1000:70000 opt/tool',
  'ln opt/tool opt/tool-link',
  'mkdir opt/made',
  'mkfifo opt/made/fifo',
].join(' && ');

/** What busybox has no command for; made with commands of the environment. */
const MORE_CHANGES = ['setfattr -n user.shape -v round opt/tool', 'setcap cap_net_admin+ep opt/tool'].join(' && ');

describe.each([
  { jail: false, signal: '/mnt/image/complete', root: '/mnt/image/image-root', compression: 'gzip' },
  { jail: true, signal: '/tmp/complete', root: '/', compression: 'zstd' },
])('customize, jail $jail, $compression', ({ jail, signal, root, compression }) => {
  let system: System;
  let source: DemoImage;
  let imageId: string;
  let job: JobView;
  let manifest: ImageManifest;

  beforeAll(async () => {
    system = await System.start();
    source = await buildDemoImage(system.file('source'), { compression, prepare: addOddities });
  }, 60_000);
  afterAll(() => system.stop());

  it('starts from a key and an image', async () => {
    const keyId = await system.addKey();
    imageId = await system.addImage({ image: source });
    job = await system.startJob(imageId, keyId, { ssh_containers: [{ name: 'customize', jail }] });
    expect(job).toMatchObject({
      status: 'creating',
      job_type: 'customize',
      artifact_id: imageId,
      public_key_id: keyId,
      image_root_archive_name: 'result',
      kernel_file_name: 'vmlinuz',
      initrd_file_name: 'initrd',
      enable_debug: false,
      build_env_size: 10,
      kubernetes_job: `cray-ims-${job.id}-customize`,
      kubernetes_service: `cray-ims-${job.id}-service`,
      kubernetes_configmap: `cray-ims-${job.id}-configmap`,
      kubernetes_namespace: 'ims',
      resultant_image_id: null,
      ssh_containers: [{ name: 'customize', jail, status: 'pending' }],
    });
  });

  it('waits on the user with a shell whose host key is known before', async () => {
    job = await system.waitFor(job.id, 'waiting_on_user');
    expect(job.ssh_containers![0]!.host_keys).toEqual([
      { type: 'ssh-ed25519', key: expect.any(String), fingerprint: expect.stringMatching(/^SHA256:/) },
    ]);
    expect((await system.ssh(job, 'id -u')).stdout).toBe('0\n');
  });

  it('tells programs of the shell about their job', async () => {
    const { stdout } = await system.ssh(job, 'echo $IMS_JOB_ID $IMS_ARCH $IMS_DKMS_ENABLED [$REMOTE_BUILD_NODE]');
    expect(stdout).toBe(`${job.id} x86_64 True []\n`);
  });

  it('lets nobody in without the key', async () => {
    const { host, port } = (await system.sshOptions(job)) as { host: string; port: string };
    const other = system.file(`other-key-${jail}`);
    execFileSync('ssh-keygen', ['-q', '-t', 'ed25519', '-N', '', '-f', other]);
    const attempt = () =>
      execFileSync(
        'ssh',
        [
          '-F',
          'none',
          '-i',
          other,
          '-o',
          'IdentitiesOnly=yes',
          '-o',
          'BatchMode=yes',
          '-o',
          'StrictHostKeyChecking=no',
        ].concat(['-o', 'UserKnownHostsFile=/dev/null', '-o', 'LogLevel=ERROR', '-p', port, `root@${host}`, 'id']),
        { stdio: 'pipe' },
      );
    expect(attempt).toThrow(/Permission denied/);
  });

  it('takes commands, terminals, sftp and scp', async () => {
    expect((await system.ssh(job, 'tty', '-tt')).stdout).toMatch(/^\/dev\/pts\/\d+/);
    const { options, host, port } = await system.sshOptions(job);
    const file = system.file('upload');
    await writeFile(file, 'by scp and sftp\n');
    const target = path.posix.join(root, 'opt');
    execFileSync('scp', [...options, '-P', port, file, `root@${host}:${target}/scp`]);
    execFileSync('sftp', [...options, '-P', port, '-b', '-', `root@${host}`], {
      input: `put ${file} ${target}/sftp\nget ${target}/scp ${file}.back\n`,
    });
    expect(await readFile(`${file}.back`, 'utf8')).toBe('by scp and sftp\n');
  });

  it('resolves names as this machine does', async () => {
    const resolver = '/etc/resolv.conf';
    expect((await system.ssh(job, `cat ${path.posix.join(root, resolver)}`)).stdout).toContain('nameserver 10.0.2.3');
  });

  it('takes changes', async () => {
    expect(await system.ssh(job, `cd ${root} && ${CHANGES}`)).toMatchObject({ code: 0, stderr: '' });
    if (!jail) expect(await system.ssh(job, `cd ${root} && ${MORE_CHANGES}`)).toMatchObject({ code: 0, stderr: '' });
  });

  it('closes all connections when it is complete', async () => {
    const open = system.ssh(job, 'sleep 300');
    await until(
      'a second connection is open',
      async () =>
        (await system.ssh(job, 'ps | grep -c "[s]leep 300" || ps ax | grep -c "[s]leep 300"')).stdout.trim() !== '0',
    );
    await system.ssh(job, `touch ${signal}`);
    expect((await open).code).toBe(255);
  });

  it('registers a new image', async () => {
    job = await system.waitFor(job.id, 'success');
    const image = await system.api.request<object>('GET', `/images/${job.resultant_image_id}`);
    expect(image).toMatchObject({ name: 'result', arch: 'x86_64', link: { type: 's3' } });
    manifest = await system.manifestOf(job.resultant_image_id!);
    expect(manifest).toMatchObject({ version: '1.0' });
    expect(manifest.artifacts.map(({ type }) => type)).toEqual([
      'application/vnd.cray.image.rootfs.squashfs',
      'application/vnd.cray.image.kernel',
      'application/vnd.cray.image.initrd',
      'application/vnd.cray.image.parameters.boot',
    ]);
  });

  it('stores artifacts as the manifest says', async () => {
    const names = ['rootfs', 'kernel', 'initrd', 'boot_parameters'];
    for (const [index, { link: artifact, md5 }] of manifest.artifacts.entries()) {
      expect(artifact.path).toBe(`s3://boot-images/${job.resultant_image_id}/${names[index]}`);
      const content = await readFile(await system.download(artifact.path));
      expect(createHash('md5').update(content).digest('hex')).toBe(md5);
      expect(await system.store.head(findLocation(artifact.path)!)).toMatchObject({
        etag: artifact.etag,
        metadata: {
          md5sum: md5,
          'x-shasta-ims-image-name': 'result',
          'x-shasta-ims-image-id': job.resultant_image_id,
          'x-shasta-ims-job-id': job.id,
        },
      });
    }
    const kernel = await readFile(await system.download(manifest.artifacts[1]!.link.path));
    expect(kernel).toEqual(await readFile(source.kernel));
  });

  it('holds the source, the changes, the CA certificate, and nothing else', async () => {
    const rootfs = await system.download(manifest.artifacts[0]!.link.path);
    const lines = (await system.differences(source.rootfs, rootfs)).toSorted();
    const times = [...(jail ? ['tmp/'] : []), 'etc/', 'opt/'].map((name) => `.d..t...... ${name}`);
    expect(lines).toEqual(
      [
        '*deleting   opt/old',
        '>fcst...... etc/passwd',
        '>fcst...... opt/one',
        ...['etc/motd', 'opt/tool-link', 'opt/scp', 'opt/sftp'].map((name) => `>f+++++++++ ${name}`),
        '>f+++++++++ etc/cray/ca/certificate_authority.crt',
        'hf+++++++++ opt/tool => opt/tool-link',
        'hf.st...... opt/two',
        ...['etc/cray/', 'etc/cray/ca/', 'opt/made/'].map((name) => `cd+++++++++ ${name}`),
        'cS+++++++++ opt/made/fifo',
        ...times,
      ].toSorted(),
    );
  });

  it('keeps owners, modes, attributes and capabilities', async () => {
    const rootfs = await system.download(manifest.artifacts[0]!.link.path);
    const script =
      'cd "$A"; stat -c "%a %u:%g %h" opt/tool; getfattr -d -m - opt/tool 2>/dev/null; getcap opt/tool opt/capable';
    const { stdout } = await system.withMounted([rootfs], script);
    expect(stdout).toContain('750 1000:70000 2');
    expect(stdout).toContain('opt/capable cap_net_raw=ep');
    if (!jail) expect(stdout).toContain('user.shape="round"');
    if (!jail) expect(stdout).toContain('opt/tool cap_net_admin=ep');
  });

  it('packs as the source was packed', async () => {
    const file = await system.download(manifest.artifacts[0]!.link.path);
    expect(execFileSync('unsquashfs', ['-stat', file]).toString()).toContain(`Compression ${compression}`);
  });

  it('reuses what did not change, and says so', async () => {
    const { packing } = await system.api.job(job.id);
    const { size } = await stat(await system.download(manifest.artifacts[0]!.link.path));
    expect(packing).toMatchObject({ method: 'delta', bytes_reused: expect.any(Number) });
    expect(packing!.bytes_reused + packing!.bytes_new).toBe(packing!.bytes);
    expect(Math.ceil(packing!.bytes / 4096) * 4096).toBe(size);
    expect(packing!.bytes_new).toBeLessThan(size / 4);
    expect(Object.keys(packing!.seconds).toSorted()).toEqual(STAGES.toSorted());
  });

  it('leaves nothing when the job is deleted', async () => {
    await system.api.request('DELETE', `/jobs/${job.id}`);
    await system.expectNoTraces(job.id);
    await expect(system.api.job(job.id)).rejects.toThrow(/no job|not exist|There is no/i);
  });
});

describe.each([
  { jail: false, signal: '/mnt/image/failed' },
  { jail: true, signal: '/tmp/failed' },
])('a shell that ends by $signal', ({ jail, signal }) => {
  it('makes no image', async () => {
    const system = await System.start();
    try {
      const job = await system.startJob(await system.addImage(), await system.addKey(), { ssh_containers: [{ jail }] });
      const before = await system.artifacts();
      await system.ssh(await system.waitFor(job.id, 'waiting_on_user'), `touch ${signal}`);
      const { status_reason, resultant_image_id } = await system.waitFor(job.id, 'error');
      expect(status_reason).toContain('touching the file failed');
      expect(resultant_image_id).toBeNull();
      expect(await system.artifacts()).toEqual(before);
      await system.api.request('DELETE', `/jobs/${job.id}`);
      await system.expectNoTraces(job.id);
    } finally {
      await system.stop();
    }
  }, 60_000);
});
