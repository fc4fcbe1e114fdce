import { buildDemoImage } from '../../src/quickstart/demo-image.js';
import type { JobView } from '../../src/quickstart/api.js';
import { expectPlayed, play } from '../support/ansible.js';
import { Cluster } from '../support/cluster.js';
import { asArchive } from '../support/tar-archive.js';
import { System, until } from '../support/system.js';

/*
 * The operators' procedure on a real cluster: pods, a shell behind the address of a balancer, `complete`, a new image in the store. Servers run
 * on this machine; chart.spec.ts has them in the cluster.
 */

let cluster: Cluster;
let system: System;
let keyId: string;

beforeAll(async () => {
  cluster = await Cluster.open();
  system = await cluster.startSystem();
  keyId = await system.addKey();
}, 120_000);
afterAll(() => cluster?.close(), 60_000);

/** Resolves when a job's shell is open and has its address, and that leads to it: nodes learn of addresses in their own time. */
async function waitForShell(id: string): Promise<JobView> {
  await system.waitFor(id, 'waiting_on_user', 120);
  let job: JobView;
  await until('its address is known', async () => {
    job = await system.api.job(id);
    return job.ssh_containers![0]!.connection_info.customer_access.external_ip !== undefined;
  });
  await until('its address leads to it', async () => (await system.ssh(job, 'true')).code === 0);
  return job!;
}

describe.each([
  { jail: false, require_dkms: false, root: '/mnt/image/image-root', signal: '/mnt/image/complete' },
  { jail: true, require_dkms: false, root: '/', signal: '/tmp/complete' },
  { jail: false, require_dkms: true, root: '/mnt/image/image-root', signal: '/mnt/image/complete' },
  { jail: true, require_dkms: true, root: '/', signal: '/tmp/complete' },
])('a job with jail $jail, dkms $require_dkms', ({ jail, require_dkms, root, signal }) => {
  let source: Awaited<ReturnType<typeof buildDemoImage>>;
  let job: JobView;

  it('waits on the user, behind an address of its own', async () => {
    source = await buildDemoImage(system.file(`source-${jail}-${require_dkms}`), {});
    const imageId = await system.addImage({ image: source });
    const { id } = await system.startJob(imageId, keyId, {
      require_dkms,
      ssh_containers: [{ name: 'customize', jail }],
    });
    job = await waitForShell(id);
    expect((await system.ssh(job, `cat ${root}/etc/hostname`)).code).toBe(0);
    expect((await system.ssh(job, 'echo $IMS_JOB_ID')).stdout.trim()).toBe(id);
  }, 150_000);

  it('can be reached from pods by the name that its record gives', async () => {
    const { host } = (job.ssh_containers![0]!.connection_info as never as Record<string, { host: string }>)[
      'cluster.local'
    ]!;
    const probe = `require("net").connect(22, ${JSON.stringify(host)}).once("data", (d) => { console.log(String(d)); process.exit(0) })`;
    expect(await cluster.exec(job.id, 'buildenv-sidecar', 'node', '-e', probe)).toMatch(/^SSH-2.0/);
  }, 60_000);

  it('keeps the keys of the store from its user', async () => {
    const { stdout } = await system.ssh(job, 'cat /proc/1/environ /proc/*/environ 2>/dev/null | tr "\\0" "\\n"');
    expect(stdout).not.toMatch(/S3_SECRET_KEY/);
  }, 60_000);

  it('registers what was changed, and nothing else', async () => {
    const changes = `cd ${root} && echo changed > etc/motd && rm etc/hostname && ln etc/motd etc/motd-link && chown 1000:70000 home`;
    expect(await system.ssh(job, changes)).toMatchObject({ code: 0 });
    expect((await system.ssh(job, `touch ${signal}`)).code).toBe(0);
    const { resultant_image_id } = await system.waitFor(job.id, 'success', 60);
    const differences = await system.differences(source.rootfs, await system.rootfsOf(resultant_image_id!));
    const names = differences.map((line) => line.replace(/^\S+\s+/, '').replace(/ => .*/, ''));
    // In a jail the file that ended the shell was made in /tmp of the image, and has left its time there.
    const touched = ['etc/', 'etc/hostname', 'etc/motd', 'etc/motd-link', 'home/', ...(jail ? ['tmp/'] : [])];
    expect(names.toSorted()).toEqual(touched);
  }, 150_000);

  it('tells operators of the upload where they look for it, and keeps its logs', async () => {
    const log = await cluster.kubectl('logs', await cluster.podOf(job.id), '-c', 'buildenv-sidecar');
    expect(log).toMatch(/"path": "s3:\/\/boot-images\/[^"]+\/manifest\.json"/);
    const kept = await fetch(`${system.url}/v3/jobs/${job.id}/logs?container=buildenv-sidecar`);
    expect(await kept.text()).toContain('manifest.json');
  }, 60_000);

  it('gives back its address at once, its disk with its pod, and leaves nothing when it is deleted', async () => {
    await until('the address is back', async () =>
      (await cluster.objectsOf(job.id)).every((name) => !name.startsWith('service')),
    );
    // Kubernetes keeps a claim while there is a pod that has used it, and with that pod stay its logs.
    const claim = ['get', 'pvc', `cray-ims-${job.id}-job-claim`, '-o', 'jsonpath={.metadata.deletionTimestamp}'];
    await until('the disk goes with the pod', async () => (await cluster.kubectl(...claim)) !== '');
    // As after the time for which the cluster keeps them.
    const soon = JSON.stringify({ spec: { ttlSecondsAfterFinished: 1 } });
    await cluster.kubectl('patch', 'job', `cray-ims-${job.id}-customize`, '--type=merge', '-p', soon);
    await until('pod and disk are gone', async () => (await cluster.objectsOf(job.id)).length === 0, 60);
    expect(await system.api.job(job.id)).toMatchObject({ status: 'success' });
    await system.api.request('DELETE', `/jobs/${job.id}`);
  }, 90_000);
});

it.each([false, true])(
  'takes a rootfs that is a tar archive (dkms %s)',
  async (require_dkms) => {
    const source = await buildDemoImage(system.file(`tar-${require_dkms}`), {});
    const image = asArchive(source, system.file(`tar-${require_dkms}.rootfs`), '--zstd');
    const { id } = await system.startJob(await system.addImage({ image }), keyId, { require_dkms });
    await system.ssh(
      await waitForShell(id),
      'echo changed > /mnt/image/image-root/etc/motd; touch /mnt/image/complete',
    );
    const { resultant_image_id } = await system.waitFor(id, 'success', 60);
    const differences = await system.differences(source.rootfs, await system.rootfsOf(resultant_image_id!));
    expect(differences.map((line) => line.replace(/^\S+\s+/, ''))).toEqual(['etc/', 'etc/motd']);
    await cluster.deleteJob(system, id);
  },
  240_000,
);

it('is a host of Ansible', async () => {
  const { id } = await system.startJob(await system.addImage(), keyId);
  await play(system, await waitForShell(id), false);
  await expectPlayed(system, (await system.waitFor(id, 'success', 60)).resultant_image_id!);
  await cluster.deleteJob(system, id);
}, 300_000);

it('runs ten jobs at once', async () => {
  const imageId = await system.addImage();
  const begun = await Promise.all(Array.from({ length: 10 }, () => system.startJob(imageId, keyId)));
  const jobs = await Promise.all(begun.map(({ id }) => waitForShell(id)));
  await Promise.all(jobs.map((job) => system.ssh(job, 'touch /mnt/image/complete')));
  for (const { id } of jobs) await system.waitFor(id, 'success', 120);
  await Promise.all(jobs.map(({ id }) => cluster.deleteJob(system, id)));
}, 300_000);
