import { readFile } from 'node:fs/promises';
import { buildDemoImage } from '../../src/quickstart/demo-image.js';
import type { HostKey } from '../../src/protocol/job-report.js';
import type { JobView } from '../../src/quickstart/api.js';
import { expectPlayed, play } from '../support/ansible.js';
import { Cluster, kubectl, kubectlApply, waitForAddress, WORKER_IMAGE } from '../support/cluster.js';
import { asArchive } from '../support/tar-archive.js';
import { sleep, System, until } from '../support/system.js';

/*
 * The operators' procedure on a real cluster: pods, a shell behind the address of a balancer, `complete`, a new image in the store. Servers run
 * on this machine; chart.spec.ts has them, their database and the store in the cluster.
 */

let cluster: Cluster;
let system: System;
let keyId: string;

beforeAll(async () => {
  cluster = await Cluster.open();
  system = await cluster.startSystem();
  keyId = await system.addKey();
  await startVisitor();
}, 120_000);
afterAll(() => cluster?.close(), 60_000);

/** Another pod, which has the key of the jobs' user, as those that configure images have. */
const VISITOR = 'visitor';

async function startVisitor(): Promise<void> {
  const files = { key: await readFile(system.file('key'), 'utf8') };
  const metadata = { name: VISITOR, namespace: cluster.namespace };
  await kubectlApply(
    { apiVersion: 'v1', kind: 'Secret', metadata, stringData: files },
    {
      apiVersion: 'v1',
      kind: 'Pod',
      metadata,
      spec: {
        terminationGracePeriodSeconds: 0,
        containers: [
          {
            name: VISITOR,
            image: WORKER_IMAGE,
            imagePullPolicy: 'Never',
            command: ['sleep', 'infinity'],
            volumeMounts: [{ name: 'key', mountPath: '/key', readOnly: true }],
          },
        ],
        volumes: [{ name: 'key', secret: { secretName: VISITOR, defaultMode: 0o400 } }],
      },
    },
  );
  await cluster.kubectl('wait', '--for=condition=Ready', `pod/${VISITOR}`, '--timeout=60s');
}

/** Runs a command in a job's shell from another pod, by the name that the record gives; trusts nothing but the keys of the record. */
async function visit({ ssh_containers: [shell] }: Shell, script: string): Promise<string> {
  const { host } = shell.connection_info['cluster.local'];
  const known = shell.host_keys.map(({ type, key }) => `${host} ${type} ${key}`).join('\n');
  const options = '-i /key/key -o UserKnownHostsFile=/tmp/known -o StrictHostKeyChecking=yes -o BatchMode=yes';
  const ssh = 'printf "%s\\n" "$1" > /tmp/known; exec ssh -F none $0 "root@$2" "$3"';
  return cluster.kubectl('exec', VISITOR, '--', 'sh', '-c', ssh, options, known, host, script);
}

/** What a record tells of a shell that is open. */
type Shell = JobView & {
  kubernetes_job: string;
  ssh_containers: [{ host_keys: HostKey[]; connection_info: Record<'cluster.local' | 'customer_access', Address> }];
};

interface Address {
  host: string;
  port: number;
  external_ip?: string;
}

/** Resolves when a job's shell is open and can be reached. */
async function waitForShell(id: string): Promise<Shell> {
  await system.waitFor(id, 'waiting_on_user', 120);
  return (await waitForAddress(system, id)) as Shell;
}

describe.each([
  { jail: false, require_dkms: false, root: '/mnt/image/image-root', signal: '/mnt/image/complete' },
  { jail: true, require_dkms: false, root: '/', signal: '/tmp/complete' },
  { jail: false, require_dkms: true, root: '/mnt/image/image-root', signal: '/mnt/image/complete' },
  { jail: true, require_dkms: true, root: '/', signal: '/tmp/complete' },
])('a job with jail $jail, dkms $require_dkms', ({ jail, require_dkms, root, signal }) => {
  let source: Awaited<ReturnType<typeof buildDemoImage>>;
  let job: Shell;
  let pod: string;

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
    expect(await visit(job, `cat ${root}/etc/hostname; echo $IMS_JOB_ID`)).toContain(job.id);
  }, 60_000);

  it('is found by the commands of the procedure', async () => {
    const { external_ip } = job.ssh_containers[0].connection_info.customer_access;
    const services = (await kubectl('get', 'services', '-n', cluster.namespace)).split('\n');
    const [line] = services.filter((each) => each.includes(job.id));
    expect(line).toMatch(new RegExp(`^cray-ims-${job.id}-service +LoadBalancer +[\\d.]+ +${external_ip} +22:`));
    const description = await cluster.kubectl('describe', 'job', job.kubernetes_job);
    [, pod] = /Created pod: (\S+)/.exec(description) as never as [string, string];
    expect(pod).toMatch(new RegExp(`^cray-ims-${job.id}-customize-\\w+$`));
  }, 60_000);

  it('keeps the keys of the store from its user', async () => {
    const { stdout } = await system.ssh(job, 'cat /proc/1/environ /proc/*/environ 2>/dev/null | tr "\\0" "\\n"');
    expect(stdout).not.toMatch(/S3_SECRET_KEY/);
  }, 60_000);

  it('registers what was changed, and nothing else', async () => {
    const changes = `cd ${root} && echo changed > etc/motd && rm etc/hostname && ln etc/motd etc/motd-link && chown 1000:70000 home`;
    expect(await system.ssh(job, changes)).toMatchObject({ code: 0 });
    const uploads = cluster.kubectl('logs', '-f', pod, '-c', 'buildenv-sidecar');
    expect((await system.ssh(job, `touch ${signal}`)).code).toBe(0);
    const { resultant_image_id } = await system.waitFor(job.id, 'success', 60);
    // The last that is printed is the result, as the procedure shows it.
    const result = JSON.parse((await uploads).replace(/^[^]*?^(?=\{$)/m, '').replace(/^\}\n[^]*/m, '}')) as object;
    const at = `s3://boot-images/${resultant_image_id}`;
    const rootfs = expect.objectContaining({ link: expect.objectContaining({ path: `${at}/rootfs` }) });
    expect(result).toMatchObject({
      ims_image_artifacts: expect.arrayContaining([rootfs]),
      ims_image_record: { id: resultant_image_id, link: { path: `${at}/manifest.json` } },
    });
    const differences = await system.differences(source.rootfs, await system.rootfsOf(resultant_image_id!));
    const names = differences.map((line) => line.replace(/^\S+\s+/, '').replace(/ => .*/, ''));
    // In a jail the file that ended the shell was made in /tmp of the image, and has left its time there.
    const touched = ['etc/', 'etc/hostname', 'etc/motd', 'etc/motd-link', 'home/', ...(jail ? ['tmp/'] : [])];
    expect(names.toSorted()).toEqual(touched);
  }, 150_000);

  it('keeps its logs, gives back its address at once, and its disk with its pod', async () => {
    const kept = await fetch(`${system.url}/v3/jobs/${job.id}/logs?container=buildenv-sidecar`);
    expect(await kept.text()).toContain('manifest.json');
    await until('the address is back', async () =>
      (await cluster.objectsOf(job.id)).every((name) => !name.startsWith('service')),
    );
    // Kubernetes keeps a claim while there is a pod that has used it, and with that pod stay its logs.
    const claim = ['get', 'pvc', `cray-ims-${job.id}-job-claim`, '-o', 'jsonpath={.metadata.deletionTimestamp}'];
    await until('the disk goes with the pod', async () => (await cluster.kubectl(...claim)) !== '');
    expect(await cluster.objectsOf(job.id)).toEqual(
      expect.arrayContaining([`job.batch/${job.kubernetes_job}`, `pod/${pod}`]),
    );
  }, 90_000);

  // Both ways to the end: the time after which the cluster forgets a Job, and the deletion of the record.
  if (jail) {
    it('goes by itself when the time is over for which the cluster keeps it', async () => {
      const soon = JSON.stringify({ spec: { ttlSecondsAfterFinished: 1 } });
      await cluster.kubectl('patch', 'job', job.kubernetes_job, '--type=merge', '-p', soon);
      await until('pod and disk are gone', async () => (await cluster.objectsOf(job.id)).length === 0, 60);
      expect(await system.api.job(job.id)).toMatchObject({ status: 'success' });
    }, 90_000);
  }

  it('leaves nothing when it is deleted', async () => {
    await cluster.deleteJob(system, job.id);
    await expect(system.api.job(job.id)).rejects.toThrow(/GET/);
    const logs = () => system.store.list('ims', `jobs/${job.id}/`)[Symbol.asyncIterator]().next();
    await until('its logs are gone', async () => (await logs()).done === true);
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

it('ends shells that nobody ends: at a time that can be moved, and when nobody is there', async () => {
  const imageId = await system.addImage();
  const begun = await Promise.all([
    system.startJob(imageId, keyId),
    system.startJob(imageId, keyId, { ssh_containers: [{ name: 'customize', jail: true }] }),
  ]);
  const [timed, idle] = (await Promise.all(begun.map(({ id }) => waitForShell(id)))) as [Shell, Shell];
  const patch = (id: string, body: object) => system.api.request<JobView>('PATCH', `/jobs/${id}`, body);
  const inSeconds = (seconds: number) => new Date(Date.now() + seconds * 1000).toISOString();
  await patch(timed.id, { shell_deadline: inSeconds(8) });
  await patch(timed.id, { shell_deadline: inSeconds(3600) });
  await patch(idle.id, { shell_idle_seconds: 4 });
  await Promise.all([system.ssh(idle, 'sleep 10'), sleep(10_000)]);
  for (const { id } of [timed, idle]) expect((await system.api.job(id)).status).toBe('waiting_on_user');
  await patch(timed.id, { shell_deadline: inSeconds(1) });
  const reasons = [timed, idle].map(async ({ id }) => (await system.waitFor(id, 'error', 30)).status_reason);
  expect(await Promise.all(reasons)).toEqual([
    expect.stringContaining('before the deadline of the shell'),
    expect.stringContaining('nobody was logged in to the shell'),
  ]);
  for (const { id } of [timed, idle]) await cluster.deleteJob(system, id);
}, 240_000);

it('runs ten jobs at once', async () => {
  const imageId = await system.addImage();
  const begun = await Promise.all(Array.from({ length: 10 }, () => system.startJob(imageId, keyId)));
  const jobs = await Promise.all(begun.map(({ id }) => waitForShell(id)));
  await Promise.all(jobs.map((job) => system.ssh(job, 'touch /mnt/image/complete')));
  for (const { id } of jobs) await system.waitFor(id, 'success', 120);
  await Promise.all(jobs.map(({ id }) => cluster.deleteJob(system, id)));
}, 300_000);
