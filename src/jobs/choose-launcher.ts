import { readFile } from 'node:fs/promises';
import { availableParallelism } from 'node:os';
import path from 'node:path';
import type { Config } from '../config/config.js';
import type { ArtifactLocation } from '../protocol/artifact-link.js';
import { type JobLauncher, LaunchRefused } from './launcher/job-launcher.js';
import type { PodSettings } from './launcher/kubernetes/resources.js';
import { LocalJobLauncher } from './launcher/local/local-job-launcher.js';

/** What jobs need to know of the machine that the server runs on. */
export interface JobSurroundings {
  /** Names the state directory among all servers on a database. */
  stateId: string;
  /** The file that holds an artifact, where the store is on this machine. */
  findLocalFile(location: ArtifactLocation): Promise<string | null>;
}

/** Names what runs the jobs of a server: the machine that it runs on, or a cluster, which serves all servers on the database. */
export function runnerOf({ jobs }: Config, { stateId }: JobSurroundings): string {
  return jobs.kubernetes ? `kubernetes:${jobs.namespace}` : `local:${stateId}`;
}

/** The launcher that the configuration chooses. */
export async function chooseLauncher(config: Config, surroundings: JobSurroundings): Promise<JobLauncher> {
  return config.jobs.kubernetes ? kubernetesLauncher(config) : localLauncher(config, surroundings);
}

async function localLauncher(config: Config, surroundings: JobSurroundings): Promise<LocalJobLauncher> {
  const { local } = config.jobs;
  const launcher = new LocalJobLauncher({
    directory: path.join(config.stateDir, 'jobs'),
    workerMain: path.resolve(import.meta.dirname, '../worker/main.js'),
    workerEnvironment: {
      S3_ENDPOINT: config.s3.endpoint!,
      S3_ACCESS_KEY: config.s3.credentials!.accessKey,
      S3_SECRET_KEY: config.s3.credentials!.secretKey,
      S3_SSL_VALIDATE: String(config.s3.sslValidate),
      S3_REGION: config.s3.region,
      DISK_RESERVE_MIB: String(local.diskReserveMib),
      // Threads that compress; Node reads it before any program can set it.
      UV_THREADPOOL_SIZE: String(Math.max(4, availableParallelism())),
      KIWI_DIR: local.kiwiDir,
      SIGNING_KEYS_DIR: config.jobs.recipes.signingKeysDir ?? '',
      EMULATION: String(config.jobs.emulation),
    },
    ...local,
    emulation: config.jobs.emulation,
    findLocalFile: (location) => surroundings.findLocalFile(location),
  });
  await launcher.sweep();
  return launcher;
}

/** Loaded where it is chosen only: the library of Kubernetes is large. */
async function kubernetesLauncher({ jobs, s3 }: Config): Promise<JobLauncher> {
  const [{ findCluster, KubeClient }, { KubernetesJobLauncher }] = await Promise.all([
    import('./launcher/kubernetes/kube-client.js'),
    import('./launcher/kubernetes/kubernetes-job-launcher.js'),
  ]);
  const { pendingSeconds, pod, ...kubernetes } = jobs.kubernetes!;
  const { endpoint, region, sslValidate } = s3;
  return new KubernetesJobLauncher(new KubeClient(findCluster(), jobs.namespace), {
    settings: {
      ...kubernetes,
      namespace: jobs.namespace,
      customerAccess: jobs.customerAccess,
      kataRuntime: jobs.kataRuntime,
      aarch64Runtime: jobs.aarch64Runtime,
      store: { endpoint: endpoint!, region, sslValidate },
      diskReserveMib: jobs.local.diskReserveMib,
      emulation: jobs.emulation,
      pod: pod as PodSettings,
    },
    pendingSeconds,
    readStoreCa: async () => (typeof sslValidate === 'string' ? readStoreCa(sslValidate) : null),
  });
}

function readStoreCa(file: string): Promise<string> {
  return readFile(file, 'utf8').catch((error: NodeJS.ErrnoException) => {
    throw new LaunchRefused(
      `the certificates of the artifact store cannot be read (${error.code}): set S3_SSL_VALIDATE to a readable PEM file`,
    );
  });
}
