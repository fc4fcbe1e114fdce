import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { S3ArtifactStore } from '../../src/artifacts/s3-artifact-store.js';
import { PERMISSIONS } from '../../src/jobs/launcher/kubernetes/permissions.js';
import { findLocation } from '../../src/protocol/artifact-link.js';
import type { ImageManifest } from '../../src/protocol/image-manifest.js';
import { Api, type JobView } from '../../src/quickstart/api.js';
import { buildDemoImage } from '../../src/quickstart/demo-image.js';
import { registerImage } from '../../src/quickstart/register-image.js';
import { ChartRelease } from '../support/chart-release.js';
import { Cluster, kubectl } from '../support/cluster.js';
import { describeWithHelm } from '../support/helm.js';
import { sshAccess } from '../support/ssh.js';
import { BUCKET, command, CREDENTIALS, until } from '../support/system.js';

/*
 * The chart on a real cluster, where PostgreSQL and the store are pods too: servers with the rights, settings, secrets and policies that it gives
 * them, and a job that goes on while they are replaced.
 */

describeWithHelm('the chart on a cluster', () => {
  let cluster: Cluster;
  let release: ChartRelease;
  let directory: string;
  let api: Api;
  let job: JobView;
  let store: S3ArtifactStore;
  /** File of the private key of the jobs' user. */
  let key: string;

  beforeAll(async () => {
    directory = await mkdtemp(path.join(tmpdir(), 'ims-chart-spec-'));
    key = path.join(directory, 'key');
    cluster = await Cluster.open();
    release = await ChartRelease.prepare(cluster);
  }, 120_000);
  afterAll(async () => {
    await release?.close();
    await cluster?.close();
    await rm(directory, { recursive: true, force: true });
  }, 120_000);

  const settings = { DEFAULT_IMS_JOB_MEM_SIZE: 1, DEFAULT_IMS_IMAGE_SIZE: 1, JOB_ENABLE_DKMS: false };
  const podsOfServers = async () =>
    (await release.kubectl('get', 'pods', '-l', 'app.kubernetes.io/component=server', '-o', 'name'))
      .split('\n')
      .filter(Boolean);

  it('installs: migrates, then brings up two servers that are ready', async () => {
    await release.apply(settings);
    api = new Api(await release.url('http'));
    expect(await podsOfServers()).toHaveLength(2);
    expect(await api.jobs()).toEqual([]);
    const logs = await release.kubectl('logs', 'deployment/cray-ims');
    expect(logs).toContain('"msg":"listening"');
    // The hook is removed when it has succeeded.
    expect(await release.kubectl('get', 'jobs', '-o', 'name')).toBe('');
  }, 400_000);

  it('gives servers what secrets and ConfigMaps of the site hold', async () => {
    const script = 'echo $S3_SSL_VALIDATE; cat /etc/cray/ca/certificate_authority.crt';
    const told = await release.kubectl('exec', 'deployment/cray-ims', '--', 'sh', '-c', script);
    expect(told).toBe(`False\n${ChartRelease.CERTIFICATE}`);
  }, 30_000);

  it('gives the account of the servers the rights that the code uses, and no others', async () => {
    const can = async (verb: string, resource: string, namespace: string) => {
      const [name, part] = resource.split('/');
      const object = part && name === 'secrets' ? [resource] : [name!, ...(part ? [`--subresource=${part}`] : [])];
      const args = ['auth', 'can-i', verb, ...object];
      // Where the answer is no, kubectl fails.
      const { stdout } = await command('kubectl', [...args, '-n', namespace, '--as', release.account]);
      return stdout.trim() === 'yes';
    };
    const rights = PERMISSIONS.flatMap(({ apiGroups: [group], resources, verbs }) =>
      resources.flatMap((resource) =>
        verbs.map((verb) => [verb, group === 'batch' ? 'jobs.batch' : resource] as const),
      ),
    ).filter(([, resource]) => resource !== 'destinationrules');
    expect(rights.length).toBeGreaterThan(15);
    for (const [verb, resource] of rights)
      expect([verb, resource, await can(verb, resource, cluster.namespace)]).toEqual([verb, resource, true]);
    expect(await can('get', 'secrets', cluster.namespace)).toBe(false);
    expect(await can('get', 'secrets', release.namespace)).toBe(false);
    expect(await can('get', 'secrets/hpe-signing-key', release.namespace)).toBe(true);
    expect(await can('create', 'pods/exec', cluster.namespace)).toBe(false);
    expect(await can('create', 'jobs.batch', release.namespace)).toBe(false);
    expect(await can('list', 'pods', 'kube-system')).toBe(false);
  }, 60_000);

  it('answers nobody but workers at the port for reports', async () => {
    const answer = await fetch(`${await release.url('http-reports')}/v3/jobs`);
    expect([answer.status, answer.headers.get('content-type')]).toEqual([
      401,
      expect.stringContaining('application/problem+json'),
    ]);
  });

  it('runs a job as a pod of the other namespace, which reports', async () => {
    const endpoint = `http://${await release.site.addressOf('store')}`;
    store = new S3ArtifactStore({ endpoint, ...CREDENTIALS, sslValidate: true, region: 'us-east-1' });
    const image = await buildDemoImage(path.join(directory, 'image'), {});
    const artifact_id = await registerImage(api, store, BUCKET, 'source', image);
    await command('ssh-keygen', ['-q', '-t', 'ed25519', '-N', '', '-f', key]);
    const { id: public_key_id } = await api.request<{ id: string }>('POST', '/public-keys', {
      name: 'test',
      public_key: await readFile(`${key}.pub`, 'utf8'),
    });
    const request = { job_type: 'customize', artifact_id, public_key_id, image_root_archive_name: 'result' };
    const { id } = await api.request<JobView>('POST', '/jobs', request);
    job = await api.waitFor(id, 'waiting_on_user', 180);
  }, 240_000);

  /** Runs a command in the shell of the job, by the address of its balancer. */
  const ssh = async (script: string) => {
    const { options, host } = await sshAccess(job, key, path.join(directory, 'known-hosts'));
    return command('ssh', [...options, `root@${host}`, script]);
  };

  it('opens a shell behind an address', async () => {
    await until('its address is known', async () => {
      job = await api.job(job.id);
      return job.ssh_containers![0]!.connection_info.customer_access.external_ip !== undefined;
    });
    await until('its address leads to it', async () => (await ssh('true')).code === 0);
    expect((await ssh('echo changed > /mnt/image/image-root/etc/motd')).code).toBe(0);
  }, 60_000);

  it('replaces its servers when a setting changes, also while the store is away, and leaves the job alone', async () => {
    const before = await podsOfServers();
    await release.site.setAway('store', true);
    await release.apply({ ...settings, LOG_LEVEL: 'debug' });
    let after = before;
    await until('old servers are gone', async () => (after = await podsOfServers()).length === 2, 60);
    expect(after.filter((pod) => before.includes(pod))).toEqual([]);
    const ready = await fetch(`${await release.url('http')}/healthz/ready`);
    expect([ready.status, await ready.text()]).toEqual([503, expect.stringContaining('artifact store')]);
    expect(await api.job(job.id)).toMatchObject({ status: 'waiting_on_user' });
    await release.site.setAway('store', false);
    expect((await ssh('touch /mnt/image/complete')).code).toBe(0);
    const { resultant_image_id } = await api.waitFor(job.id, 'success', 180);
    const { link } = await api.request<{ link: { path: string } }>('GET', `/images/${resultant_image_id}`);
    const manifest = JSON.parse((await store.readSmall(findLocation(link.path)!, 1 << 20)).toString()) as ImageManifest;
    expect(manifest.artifacts.length).toBeGreaterThan(2);
  }, 500_000);

  it('leaves nothing of a job that is deleted, and nothing of itself but the secrets of the site', async () => {
    await api.request('DELETE', `/jobs/${job.id}`);
    await until('nothing is left of the job', async () => (await cluster.objectsOf(job.id)).length === 0, 60);
    await release.uninstall();
    const kinds =
      'deployments,pods,services,configmaps,jobs,networkpolicies,poddisruptionbudgets,roles,rolebindings,serviceaccounts';
    for (const namespace of [release.namespace, cluster.namespace]) {
      const labelled = ['-n', namespace, 'get', kinds, '-l', 'app.kubernetes.io/instance=cray-ims', '-o', 'name'];
      await until('all objects are gone', async () => (await kubectl(...labelled)).trim() === '', 60);
    }
  }, 240_000);
});
