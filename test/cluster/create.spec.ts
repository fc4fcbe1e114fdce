import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import type { JobView } from '../../src/quickstart/api.js';
import { buildDemoRepository } from '../../src/quickstart/demo-repository.js';
import { BuildSite } from '../support/build-site.js';
import { RepositoryServer } from '../support/repository.js';
import { Cluster, kubectl } from '../support/cluster.js';
import { recipeOfSignedPackages, SigningKey } from '../support/signing-key.js';
import { command, type System } from '../support/system.js';

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

describe('a create job', () => {
  let job: JobView;

  it('builds the image of its recipe', async () => {
    const { id } = await site.startJob(await site.addRecipe());
    job = await system.waitFor(id, 'success', 240);
    const rootfs = await system.rootfsOf(job.resultant_image_id!);
    const packages = 'rpm --root "$A" --dbpath /var/lib/rpm -qa --qf "%{NAME}\\n" | sort';
    const files = 'cd "$A/etc"; cat config-sh images-sh cray/ca/certificate_authority.crt';
    const { stdout } = await system.withMounted([rootfs], `${packages}; ${files}`);
    const names = ['busybox', 'cray_ca_cert', 'filesystem', 'kernel-tiny', 'motd-tiny', 'zypper'];
    const made = 'made by config.sh\nmade by images.sh\n';
    expect(stdout).toBe(`${names.join('\n')}\n${made}${await readFile(caCertificate, 'utf8')}`);
  }, 300_000);

  it('runs in the containers that operators know, and keeps their logs', async () => {
    const names = '{.spec.initContainers[*].name} {.spec.containers[*].name}';
    const containers = await cluster.kubectl('get', await cluster.podOf(job.id), '-o', `jsonpath=${names}`);
    expect(containers).toBe('fetch-recipe wait-for-repos build-ca-rpm build-image buildenv-sidecar');
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
        const { id } = await site.startJob(await site.addRecipe({ files, values: site.valuesOf(repository.url) }));
        const { kubernetes_secret } = await system.waitFor(id, 'success', 240);
        expect(kubernetes_secret).toBe(`cray-ims-${id}-signing-keys`);
        await cluster.deleteJob(system, id);
      } finally {
        await repository.stop();
      }
    } finally {
      await key.remove();
    }
  }, 300_000);

  it('whose build fails ends with what KIWI-NG said', async () => {
    const recipeId = await site.addRecipe({ values: site.valuesOf(site.repository.url, 'no-such-package') });
    const { id } = await site.startJob(recipeId);
    await expect(system.waitFor(id, 'success', 240)).rejects.toThrow(
      /the image could not be built: .*no-such-package/s,
    );
    await cluster.deleteJob(system, id);
  }, 300_000);

  it('opens what a failed build left, where somebody wants to look at it', async () => {
    const recipeId = await site.addRecipe({ files: { 'config.sh': '#!/bin/sh\nexit 3\n' } });
    const { id } = await site.startJob(recipeId, { enable_debug: true });
    await system.waitFor(id, 'waiting_on_user', 240);
    expect(await cluster.exec(id, 'sshd', 'cat', '/mnt/image/image-root/etc/motd')).toBe('from a package\n');
    await cluster.exec(id, 'sshd', 'touch', '/mnt/image/complete');
    await expect(system.waitFor(id, 'success', 60)).rejects.toThrow(/config.sh failed/);
    await cluster.deleteJob(system, id);
  }, 360_000);
});
