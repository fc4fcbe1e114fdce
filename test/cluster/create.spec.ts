import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import type { JobView } from '../../src/quickstart/api.js';
import { DEMO_RECIPE } from '../../src/quickstart/demo-recipe.js';
import { buildDemoRepository } from '../../src/quickstart/demo-repository.js';
import { BuildSite } from '../support/build-site.js';
import { RepositoryServer } from '../support/repository.js';
import { Cluster, kubectl, waitForAddress } from '../support/cluster.js';
import { recipeOfSignedPackages, SigningKey } from '../support/signing-key.js';
import { command, type System, until } from '../support/system.js';

/** Images are built from recipes in pods: KIWI-NG and package managers are those of the builder image. */

let cluster: Cluster;
let system: System;
let site: BuildSite;
let directory: string;
let caCertificate: string;
/** Where the site keeps what belongs to its services. */
let servicesNamespace: string;

beforeAll(async () => {
  directory = await mkdtemp(path.join(tmpdir(), 'ims-ca-'));
  caCertificate = path.join(directory, 'ca.pem');
  const subject = ['-subj', '/CN=test', '-nodes', '-newkey', 'rsa:2048', '-keyout', path.join(directory, 'key.pem')];
  await command('openssl', ['req', '-x509', '-days', '1', ...subject, '-out', caCertificate]);
  cluster = await Cluster.open();
  servicesNamespace = `${cluster.namespace}-services`;
  await kubectl('create', 'namespace', servicesNamespace);
  system = await cluster.startSystem({ CA_CERT: caCertificate, JOB_SIGNING_KEYS_NAMESPACE: servicesNamespace });
  site = await BuildSite.on(system, cluster.address);
}, 120_000);
afterAll(async () => {
  await site?.repository.stop();
  await kubectl('delete', 'namespace', servicesNamespace, '--wait=false');
  await cluster?.close();
  await rm(directory, { recursive: true, force: true });
}, 60_000);

/** Names of the containers of a job's pod, in their order. */
async function containersOf(id: string): Promise<string> {
  const names = '{.spec.initContainers[*].name} {.spec.containers[*].name}';
  return cluster.kubectl('get', await cluster.podOf(id), '-o', `jsonpath=${names}`);
}

/** Waits until KIWI-NG has begun the script of a recipe, in the pod of its job. */
async function waitForScript(id: string): Promise<void> {
  await system.waitFor(id, 'building_image', 120);
  const marker = await cluster
    .podOf(id)
    .then((pod) => ['exec', pod, '-c', 'build-image', '--', 'pgrep', '-x', 'sleep']);
  const runs = () => cluster.kubectl(...marker).then(Boolean, () => false);
  await until('its script runs', runs, 120);
}

describe('a create job', () => {
  let job: JobView;

  it('builds the image of its recipe', async () => {
    const { id } = await site.startJob(await site.addRecipe(), { require_dkms: false });
    job = await system.waitFor(id, 'success', 240);
    const rootfs = await system.rootfsOf(job.resultant_image_id!);
    const packages = 'rpm --root "$A" --dbpath /var/lib/rpm -qa --qf "%{NAME}\\n" | sort';
    const files = 'cd "$A/etc"; cat config-sh images-sh cray/ca/certificate_authority.crt';
    const { stdout } = await system.withMounted([rootfs], `${packages}; ${files}`);
    const names = ['busybox', 'cray_ca_cert', 'filesystem', 'kernel-tiny', 'motd-tiny', 'zypper'];
    const made = 'made by config.sh\nmade by images.sh\n';
    expect(stdout).toBe(`${names.join('\n')}\n${made}${await readFile(caCertificate, 'utf8')}`);
  }, 300_000);

  it('runs in the containers that operators know, of which only that is privileged which builds, and keeps their logs', async () => {
    expect(await containersOf(job.id)).toBe('fetch-recipe wait-for-repos build-ca-rpm build-image buildenv-sidecar');
    const privileged = '{.spec..containers[?(@.securityContext.privileged==true)].name}';
    const query = `jsonpath=${privileged}${privileged.replace('containers', 'initContainers')}`;
    expect(await cluster.kubectl('get', await cluster.podOf(job.id), '-o', query)).toBe('build-image');
    const log = await fetch(`${system.url}/v3/jobs/${job.id}/logs?container=build-image`);
    expect(await log.text()).toContain('Preparing new root system');
  }, 60_000);

  it('makes an image that can be customized', async () => {
    const { id } = await site.customize(job.resultant_image_id!);
    await system.waitFor(id, 'waiting_on_user', 120);
    const script = 'echo customized > /mnt/image/image-root/etc/motd; touch /mnt/image/complete';
    await cluster.exec(id, 'sshd', 'sh', '-c', script);
    const { resultant_image_id } = await system.waitFor(id, 'success', 60);
    const { stdout } = await system.withMounted([await system.rootfsOf(resultant_image_id!)], 'cat "$A/etc/motd"');
    expect(stdout).toBe('customized\n');
    await cluster.deleteJob(system, id);
  }, 240_000);

  it('leaves nothing when it is deleted', () => cluster.deleteJob(system, job.id), 90_000);

  it('checks packages by the keys of the site, of which it has a copy', async () => {
    const key = await SigningKey.make();
    try {
      const [packages, file] = [path.join(directory, 'signed'), path.join(directory, 'site.asc')];
      await buildDemoRepository(packages);
      await key.signRepository(packages);
      await key.export(file);
      await kubectl('-n', servicesNamespace, 'create', 'secret', 'generic', 'hpe-signing-key', `--from-file=${file}`);
      const repository = await new RepositoryServer(packages, null, cluster.address).start();
      try {
        const files = { 'config.xml': recipeOfSignedPackages() };
        const recipeId = await site.addRecipe({ files, values: site.valuesOf(repository.url) });
        // Where a build works, nobody looks at it.
        const { id } = await site.startJob(recipeId, { enable_debug: true });
        const { kubernetes_secret } = await system.waitFor(id, 'success', 240);
        expect(kubernetes_secret).toBe(`cray-ims-${id}-signing-keys`);
        const containers = 'fetch-recipe wait-for-repos build-ca-rpm build-image buildenv-sidecar sshd';
        expect(await containersOf(id)).toBe(containers);
        await cluster.deleteJob(system, id);
      } finally {
        await repository.stop();
      }
    } finally {
      await key.remove();
    }
  }, 300_000);

  it('opens what failed builds left to those who want to look at it', async () => {
    const recipeId = await site.addRecipe({ files: { 'config.sh': '#!/bin/sh\nexit 3\n' } });
    const shells = [
      { jail: false, motd: '/mnt/image/image-root/etc/motd', signal: '/mnt/image/complete' },
      { jail: true, motd: '/etc/motd', signal: '/tmp/complete' },
    ];
    const looks = shells.map(async ({ jail, motd, signal }) => {
      const shell = { enable_debug: true, ssh_containers: [{ name: 'debug', jail }] };
      const { id } = await site.startJob(recipeId, shell);
      const waiting = await system.waitFor(id, 'waiting_on_user', 240);
      expect(waiting.status_reason).toMatch(/config.sh failed/);
      const open = await waitForAddress(system, id);
      expect((await system.ssh(open, `cat ${motd}; touch ${signal}`)).stdout).toBe('from a package\n');
      await expect(system.waitFor(id, 'success', 60)).rejects.toThrow(
        /the image could not be built: .*config.sh failed/,
      );
      await cluster.deleteJob(system, id);
    });
    await Promise.all(looks);
  }, 360_000);

  it('ends with a reason where KIWI-NG is killed, or its pod is deleted', async () => {
    const recipeId = await site.addRecipe({ files: { 'config.sh': '#!/bin/sh\nsleep 986\n' } });
    const [killed, deleted] = await Promise.all([site.startJob(recipeId), site.startJob(recipeId)]);
    await Promise.all([killed!, deleted!].map(({ id }) => waitForScript(id)));
    const before = await system.artifacts();
    await cluster.exec(killed!.id, 'build-image', 'pkill', '-9', '-f', 'kiwi.kiwi');
    await cluster.kubectl('delete', await cluster.podOf(deleted!.id), '--wait=false');
    const reasons = [killed!, deleted!].map(async ({ id }) => (await system.waitFor(id, 'error', 60)).status_reason);
    expect(await Promise.all(reasons)).toEqual([
      expect.stringContaining('the image could not be built: KIWI-NG ended with SIGKILL'),
      expect.stringMatching(/pod was deleted.*Start the job again/),
    ]);
    for (const { id } of [killed!, deleted!]) await cluster.deleteJob(system, id);
    expect(await system.artifacts()).toEqual(before);
  }, 360_000);

  it('builds for longer than a pod may wait for what it needs, and by dnf', async () => {
    await system.stopServer();
    const other = await cluster.startSystem({ JOB_PENDING_SECONDS: '8' });
    const elsewhere = await BuildSite.on(other, cluster.address);
    try {
      const config = DEMO_RECIPE['config.xml']!.replace('>zypper<', '>dnf4<').replace('name="zypper"', 'name="dnf"');
      const files = { 'config.xml': config, 'config.sh': `${DEMO_RECIPE['config.sh']!}sleep 15\n` };
      const { id } = await elsewhere.startJob(await elsewhere.addRecipe({ files }));
      const { resultant_image_id } = await other.waitFor(id, 'success', 240);
      const rootfs = await other.rootfsOf(resultant_image_id!);
      const { stdout } = await other.withMounted([rootfs], 'cat "$A/etc/motd" "$A/etc/config-sh"');
      expect(stdout).toBe('from a package\nmade by config.sh\n');
      await cluster.deleteJob(other, id);
    } finally {
      await elsewhere.repository.stop();
      await other.stopServer();
      await system.startServer();
    }
  }, 360_000);
});
