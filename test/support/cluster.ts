import { execFile } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { networkInterfaces, tmpdir } from 'node:os';
import path from 'node:path';
import { promisify } from 'node:util';
import { type S3Server, startS3Server } from '../../src/embedded/s3/s3-server.js';
import { startEmbeddedPostgres } from '../../src/embedded/postgres.js';
import type { JobView } from '../../src/quickstart/api.js';
import { freePorts } from './ports.js';
import { CREDENTIALS, System, until } from './system.js';

const run = promisify(execFile);

/** The container image of the worker, as test/cluster/run builds it. */
export const WORKER_IMAGE = 'localhost/cray-ims-worker:test';
/** That of the worker with KIWI-NG. */
export const BUILDER_IMAGE = 'localhost/cray-ims-builder:test';
/** All that a job may consist of. */
const PARTS = 'jobs,pods,services,persistentvolumeclaims,configmaps,secrets';

/** Address of this machine that pods can reach: that of the wire to the test cluster. */
function addressForPods(): string {
  const wire = networkInterfaces()['ims-test']?.find(({ family }) => family === 'IPv4');
  const address = process.env['IMS_CLUSTER_HOST'] ?? wire?.address;
  if (!address) throw new Error('set IMS_CLUSTER_HOST to an address of this machine that pods can reach');
  return address;
}

/** Asks the cluster that KUBECONFIG names. */
export async function kubectl(...args: string[]): Promise<string> {
  return (await run('kubectl', args, { maxBuffer: 64 << 20 })).stdout;
}

/** Hands an object to a command of kubectl. */
async function send(object: object, ...args: string[]): Promise<void> {
  const sent = run('kubectl', [...args, '-f', '-']);
  sent.child.stdin!.end(JSON.stringify(object));
  await sent;
}

/** Has the cluster have these objects. */
export function kubectlApply(...objects: object[]): Promise<void> {
  return send({ apiVersion: 'v1', kind: 'List', items: objects }, 'apply');
}

/** The record of a job whose shell is open, once it has its address and that leads to it: nodes learn of addresses in their own time. */
export async function waitForAddress(system: System, jobId: string): Promise<JobView> {
  let job: JobView;
  await until('its address is known', async () => {
    job = await system.api.job(jobId);
    return job.ssh_containers![0]!.connection_info.customer_access.external_ip !== undefined;
  });
  await until('its address leads to it', async () => (await system.ssh(job, 'true')).code === 0);
  return job!;
}

/** A namespace of a real cluster for jobs, and beside it on this machine a database and a store for servers that run here. */
export class Cluster {
  private readonly systems: System[] = [];

  private constructor(
    readonly namespace: string,
    private readonly directory: string,
    /** Address of this machine that pods can reach. */
    readonly address: string,
    private readonly store: S3Server,
    private readonly database: { url: string; stop(): Promise<void> },
  ) {}

  static async open(): Promise<Cluster> {
    const directory = await mkdtemp(path.join(tmpdir(), 'ims-cluster-'));
    const address = addressForPods();
    const namespace = `ims-test-${Math.random().toString(36).slice(2, 8)}`;
    await kubectl('create', 'namespace', namespace);
    await kubectl('-n', namespace, 'create', 'serviceaccount', 'ims-service-job-mount');
    const literals = [
      `--from-literal=access_key=${CREDENTIALS.accessKey}`,
      `--from-literal=secret_key=${CREDENTIALS.secretKey}`,
    ];
    await kubectl('-n', namespace, 'create', 'secret', 'generic', 'ims-s3-credentials', ...literals);
    const store = await startS3Server({
      directory: path.join(directory, 's3'),
      host: address,
      credentials: CREDENTIALS,
    });
    const database = await startEmbeddedPostgres({ directory: path.join(directory, 'postgres') });
    return new Cluster(namespace, directory, address, store, database);
  }

  /** Starts a server here that launches its jobs there. */
  async startSystem(environment: Record<string, string> = {}): Promise<System> {
    const port = String(await freePorts());
    const system = await System.start({
      JOB_LAUNCHER: 'kubernetes',
      KUBECONFIG: process.env['KUBECONFIG']!,
      DATABASE_URL: this.database.url,
      S3_ENDPOINT: this.store.endpoint,
      S3_ACCESS_KEY: CREDENTIALS.accessKey,
      S3_SECRET_KEY: CREDENTIALS.secretKey,
      PORT: port,
      LISTEN_ADDRESS: this.address,
      JOB_SERVER_URL: `http://${this.address}:${port}`,
      JOB_WORKER_IMAGE: WORKER_IMAGE,
      JOB_BUILDER_IMAGE: BUILDER_IMAGE,
      JOB_IMAGE_PULL_POLICY: 'Never',
      DEFAULT_IMS_JOB_NAMESPACE: this.namespace,
      DEFAULT_IMS_JOB_MEM_SIZE: '1',
      DEFAULT_IMS_IMAGE_SIZE: '1',
      JOB_ENABLE_DKMS: 'false',
      ...environment,
    });
    this.systems.push(system);
    return system;
  }

  kubectl(...args: string[]): Promise<string> {
    return kubectl('-n', this.namespace, ...args);
  }

  /** The pod of a job. */
  async podOf(jobId: string): Promise<string> {
    const name = await this.kubectl('get', 'pods', '-l', `app.kubernetes.io/instance=${jobId}`, '-o', 'name');
    return name.trim();
  }

  /** Asks for the end of a job's pod as `kubectl drain` does. */
  async evict(jobId: string): Promise<void> {
    const name = (await this.podOf(jobId)).replace('pod/', '');
    const at = `/api/v1/namespaces/${this.namespace}/pods/${name}/eviction`;
    await send({ apiVersion: 'policy/v1', kind: 'Eviction', metadata: { name } }, 'create', '--raw', at);
  }

  /** Runs a command in a container of a job's pod. */
  async exec(jobId: string, container: string, ...command: string[]): Promise<string> {
    return this.kubectl('exec', await this.podOf(jobId), '-c', container, '--', ...command);
  }

  /** Names of all objects of a job, or of all jobs. */
  async objectsOf(jobId?: string): Promise<string[]> {
    const selector = `app.kubernetes.io/name=ims-job${jobId ? `,app.kubernetes.io/instance=${jobId}` : ''}`;
    return (await this.kubectl('get', PARTS, '-l', selector, '-o', 'name')).split('\n').filter(Boolean);
  }

  /** Deletes a job by the API and waits until nothing is left of it. */
  async deleteJob(system: System, jobId: string): Promise<void> {
    await system.api.request('DELETE', `/jobs/${jobId}`);
    await until('nothing is left in the cluster', async () => (await this.objectsOf(jobId)).length === 0, 60);
  }

  async close(): Promise<void> {
    for (const system of this.systems) await system.stop();
    await kubectl('delete', 'namespace', this.namespace, '--wait=false');
    await this.store.close();
    await this.database.stop();
    await rm(this.directory, { recursive: true, force: true });
  }
}
