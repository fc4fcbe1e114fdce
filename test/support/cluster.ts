import { execFile } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { once } from 'node:events';
import { connect, createServer, type Server } from 'node:net';
import { networkInterfaces, tmpdir } from 'node:os';
import path from 'node:path';
import { promisify } from 'node:util';
import { type S3Server, startS3Server } from '../../src/embedded/s3/s3-server.js';
import { startEmbeddedPostgres } from '../../src/embedded/postgres.js';
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

/** Has the cluster have these objects. */
export async function kubectlApply(...objects: object[]): Promise<void> {
  const applied = run('kubectl', ['apply', '-f', '-']);
  applied.child.stdin!.end(JSON.stringify({ apiVersion: 'v1', kind: 'List', items: objects }));
  await applied;
}

/** A namespace of a real cluster for jobs, and beside it on this machine a database and a store for servers that run here. */
export class Cluster {
  private readonly systems: System[] = [];
  private readonly gates: Server[] = [];

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

  /** What a server in a pod needs to know of store and database; a port of this machine leads to the socket of the database. */
  async addressesForPods(): Promise<{ store: string; database: string }> {
    const socket = path.join(new URL(this.database.url).searchParams.get('host')!, '.s.PGSQL.5432');
    const gate = createServer((pod) => {
      const database = connect(socket);
      for (const end of [pod, database]) end.on('error', () => [pod, database].forEach((other) => other.destroy()));
      pod.pipe(database).pipe(pod);
    });
    gate.listen(await freePorts(), this.address);
    await once(gate, 'listening');
    this.gates.push(gate);
    const { port } = gate.address() as { port: number };
    return { store: this.store.endpoint, database: `postgres://ims@${this.address}:${port}/ims` };
  }

  kubectl(...args: string[]): Promise<string> {
    return kubectl('-n', this.namespace, ...args);
  }

  /** The pod of a job. */
  async podOf(jobId: string): Promise<string> {
    const name = await this.kubectl('get', 'pods', '-l', `app.kubernetes.io/instance=${jobId}`, '-o', 'name');
    return name.trim();
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
    for (const gate of this.gates) gate.close();
    await kubectl('delete', 'namespace', this.namespace, '--wait=false');
    await this.store.close();
    await this.database.stop();
    await rm(this.directory, { recursive: true, force: true });
  }
}
