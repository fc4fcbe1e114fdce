import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { Cluster, kubectl, WORKER_IMAGE } from './cluster.js';
import { ClusterSite } from './cluster-site.js';
import { CHART, HELM } from './helm.js';
import { command, CREDENTIALS } from './system.js';

/** The container image of the server, as test/cluster/run builds it. */
const SERVER_IMAGE = 'localhost/cray-ims-server:test';

function imageValues(image: string): object {
  const [repository, tag] = image.split(/:(?=[^:]*$)/);
  return { repository, tag, pullPolicy: 'Never' };
}

/** The chart on a real cluster, with database, store and secrets as a site has them; its jobs run in the namespace of `cluster`. */
export class ChartRelease {
  static readonly NAME = 'cray-ims';
  /** What stands in the ConfigMap of the site CA. */
  static readonly CERTIFICATE = 'the certificate of the site';
  /** Account of the servers, as `kubectl --as` takes it. */
  readonly account: string;

  private constructor(
    readonly namespace: string,
    readonly site: ClusterSite,
    private readonly directory: string,
    private readonly values: object,
  ) {
    this.account = `system:serviceaccount:${namespace}:${ChartRelease.NAME}`;
  }

  /** Makes the namespace of the servers with database, store and secrets; installs nothing yet. */
  static async prepare(cluster: Cluster): Promise<ChartRelease> {
    const namespace = `${cluster.namespace}-services`;
    await kubectl('create', 'namespace', namespace);
    const site = await ClusterSite.start(namespace);
    const secret = (name: string, data: Record<string, string>) =>
      kubectl(
        '-n',
        namespace,
        'create',
        'secret',
        'generic',
        name,
        ...Object.entries(data).map(([key, value]) => `--from-literal=${key}=${value}`),
      );
    await secret('cray-ims-database', { url: `postgres://ims@${site.hostOf('database')}/ims` });
    const { accessKey, secretKey } = CREDENTIALS;
    const s3_endpoint = `http://${site.hostOf('store')}`;
    const keys = { access_key: accessKey, secret_key: secretKey };
    await secret('ims-s3-credentials', { ...keys, s3_endpoint, ssl_validate: 'False' });
    const certificate = `--from-literal=certificate_authority.crt=${ChartRelease.CERTIFICATE}`;
    await kubectl('-n', namespace, 'create', 'configmap', 'cray-configmap-ca-public-key', certificate);
    return new ChartRelease(namespace, site, await mkdtemp(path.join(tmpdir(), 'ims-chart-')), {
      image: imageValues(SERVER_IMAGE),
      jobs: {
        namespace: cluster.namespace,
        image: imageValues(WORKER_IMAGE),
        builderImage: { repository: 'localhost/cray-ims-builder', tag: 'test' },
        mountServiceAccount: { create: false },
      },
      resources: { requests: { cpu: '10m', memory: '64Mi' } },
    });
  }

  /** Installs or upgrades and waits until all servers are ready; throws what helm says where they are not. */
  async apply(settings: Record<string, unknown>): Promise<void> {
    const file = path.join(this.directory, 'values.json');
    await writeFile(file, JSON.stringify({ ...this.values, settings }));
    const args = ['upgrade', '--install', ChartRelease.NAME, CHART, '-n', this.namespace, '-f', file];
    const { code, stderr } = await command(HELM!, [...args, '--wait', '--timeout', '4m'], { timeout: 300_000 });
    if (code !== 0) throw new Error(stderr);
  }

  async uninstall(): Promise<void> {
    const args = ['uninstall', ChartRelease.NAME, '-n', this.namespace, '--wait', '--timeout', '2m'];
    const { code, stderr } = await command(HELM!, args, { timeout: 150_000 });
    if (code !== 0) throw new Error(stderr);
  }

  kubectl(...args: string[]): Promise<string> {
    return kubectl('-n', this.namespace, ...args);
  }

  /** Url of the service at one of its ports. */
  async url(port: 'http' | 'http-reports'): Promise<string> {
    const address = `{.spec.clusterIP}:{.spec.ports[?(@.name=="${port}")].port}`;
    return `http://${await this.kubectl('get', 'service', ChartRelease.NAME, '-o', `jsonpath=${address}`)}`;
  }

  async close(): Promise<void> {
    await kubectl('delete', 'namespace', this.namespace, '--wait=false');
    await rm(this.directory, { recursive: true, force: true });
  }
}
