import { once } from 'node:events';
import { createServer, type Server } from 'node:net';
import { KubeConfig } from '@kubernetes/client-node';
import { CONTAINER_OF_PHASE } from '../../src/jobs/launcher/container-names.js';
import { findCluster, KubeClient } from '../../src/jobs/launcher/kubernetes/kube-client.js';
import { NotYet } from '../../src/jobs/launcher/job-launcher.js';
import { KubernetesJobLauncher } from '../../src/jobs/launcher/kubernetes/kubernetes-job-launcher.js';
import {
  PERMISSIONS,
  type PolicyRule,
  signingKeysPermissions,
} from '../../src/jobs/launcher/kubernetes/permissions.js';
import { BUILDER_IMAGE, Cluster, kubectl, kubectlApply, WORKER_IMAGE } from '../support/cluster.js';
import { aCreateSpec, aJobSpec } from '../support/job-spec.js';
import { kubernetesSettings } from '../support/kubernetes-settings.js';
import { freePorts } from '../support/ports.js';
import { until } from '../support/system.js';

/*
 * What the launcher does with a job from its begin to its end works with the rights of `PERMISSIONS`, which those of the chart equal, and
 * does not with any of them taken away: no right is there that is not needed.
 */

interface Right {
  group: string;
  resource: string;
  verb: string;
  /** Objects that it is for; all where it is not there. */
  resourceNames?: string[];
}

const KEYS_SECRET = 'signing-keys-of-the-site';
const RIGHTS: Right[] = [...PERMISSIONS, ...signingKeysPermissions(KEYS_SECRET)].flatMap(
  ({ apiGroups, resources, verbs, ...names }) =>
    apiGroups.flatMap((group) =>
      resources.flatMap((resource) => verbs.map((verb) => ({ group, resource, verb, ...names }))),
    ),
);
const NO_REASON = 'it is known why there is no pod';
/** Runs of the launcher at once. */
const AT_ONCE = 4;
/** A mesh is not needed for its objects: the API server takes them where it knows the resource. */
const DESTINATION_RULES = {
  apiVersion: 'apiextensions.k8s.io/v1',
  kind: 'CustomResourceDefinition',
  metadata: { name: 'destinationrules.networking.istio.io' },
  spec: {
    group: 'networking.istio.io',
    scope: 'Namespaced',
    names: { kind: 'DestinationRule', plural: 'destinationrules', singular: 'destinationrule' },
    versions: [
      {
        name: 'v1',
        served: true,
        storage: true,
        schema: { openAPIV3Schema: { type: 'object', 'x-kubernetes-preserve-unknown-fields': true } },
      },
    ],
  },
};

let cluster: Cluster;
/** Takes connections and says nothing: with such a store a job does not end by itself. */
let silence: Server;

beforeAll(async () => {
  cluster = await Cluster.open();
  await kubectlApply(DESTINATION_RULES);
  await cluster.kubectl('create', 'secret', 'generic', KEYS_SECRET, '--from-literal=site.asc=a key');
  await kubectl('wait', '--for=condition=Established', 'crd/destinationrules.networking.istio.io', '--timeout=30s');
  // Connections of pods that are gone never end.
  silence = createServer((connection) => connection.unref());
  silence.listen(await freePorts(), cluster.address);
  await once(silence, 'listening');
}, 120_000);
afterAll(async () => {
  silence?.close();
  await kubectl('delete', 'crd', 'destinationrules.networking.istio.io', '--ignore-not-found', '--wait=false');
  await cluster?.close();
}, 60_000);

/** Makes an account with these rights; returns a client that acts as it. */
async function clientWith(name: string, rights: Right[]): Promise<KubeClient> {
  const rules: PolicyRule[] = rights.map(({ group, resource, verb, ...names }) => ({
    apiGroups: [group],
    resources: [resource],
    verbs: [verb],
    ...names,
  }));
  const metadata = { name, namespace: cluster.namespace };
  const api = 'rbac.authorization.k8s.io';
  await kubectlApply(
    { apiVersion: 'v1', kind: 'ServiceAccount', metadata },
    { apiVersion: `${api}/v1`, kind: 'Role', metadata, rules },
    {
      apiVersion: `${api}/v1`,
      kind: 'RoleBinding',
      metadata,
      roleRef: { apiGroup: api, kind: 'Role', name },
      subjects: [{ kind: 'ServiceAccount', ...metadata }],
    },
  );
  const config = new KubeConfig();
  const token = (await cluster.kubectl('create', 'token', name)).trim();
  config.loadFromClusterAndUser(findCluster().getCurrentCluster()!, { name, token });
  return new KubeClient(config, cluster.namespace);
}

/** All that a launcher does in its life. */
async function work(client: KubeClient): Promise<void> {
  const { port } = silence.address() as { port: number };
  const endpoint = `http://${cluster.address}:${port}`;
  const launcher = new KubernetesJobLauncher(client, {
    settings: kubernetesSettings({
      namespace: cluster.namespace,
      workerImage: WORKER_IMAGE,
      builderImage: BUILDER_IMAGE,
      pullPolicy: 'Never',
      mountServiceAccount: 'nobody',
      signingKeys: { namespace: cluster.namespace, secret: KEYS_SECRET },
      store: { endpoint, region: 'us-east-1', sslValidate: true },
    }),
    pendingSeconds: 60,
    readStoreCa: async () => null,
  });
  const good = aCreateSpec({ build_env_size: 1, server_url: endpoint });
  const bad = aJobSpec({ build_env_size: 1, server_url: endpoint, require_dkms: true });
  try {
    await becomesReady(launcher);
    await Promise.all([good, bad].map((spec) => launcher.launch(spec)));
    await Promise.all([readsLog(launcher, good.job_id), tellsReason(launcher, bad.job_id)]);
    expect((await launcher.list()).toSorted()).toEqual(expect.arrayContaining([good.job_id, bad.job_id]));
    for (const { job_id } of [good, bad]) await launcher.release(job_id);
    for (const { job_id } of [good, bad]) await removes(launcher, job_id);
  } finally {
    await launcher.stop();
    for (const { job_id } of [good, bad])
      await cluster.kubectl('delete', 'jobs', '-l', `app.kubernetes.io/instance=${job_id}`, '--wait=false');
  }
}

/** Waits while nothing is known yet; a refusal ends it. */
async function becomesReady(launcher: KubernetesJobLauncher): Promise<void> {
  // All lists and watches are asked for at the start.
  let refusal: Error | null = null;
  for (let quiet = 0; quiet < 5;) {
    refusal = await launcher.ready().then(
      () => null,
      (error: Error) => error,
    );
    if (refusal?.message.includes('forbidden')) throw refusal;
    quiet = refusal ? 0 : quiet + 1;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

async function readsLog(launcher: KubernetesJobLauncher, jobId: string): Promise<void> {
  await until(
    'its container prints',
    async () => {
      for await (const chunk of launcher.log(jobId, CONTAINER_OF_PHASE['fetch-recipe'], 0, null))
        if (chunk.length) return true;
      return false;
    },
    60,
  );
}

/** Other than a refusal, what has not gone yet is to be removed again. */
async function removes(launcher: KubernetesJobLauncher, jobId: string): Promise<void> {
  await until('nothing is left of the job', () =>
    launcher.remove(jobId).then(
      () => true,
      (error: unknown) => {
        if (error instanceof NotYet) return false;
        throw error;
      },
    ),
  );
}

/** The event that tells why there is no pod is all that tells it. */
async function tellsReason(launcher: KubernetesJobLauncher, jobId: string): Promise<void> {
  await until(NO_REASON, async () => {
    const observation = await launcher.observe(jobId);
    return observation.state === 'running' && /nobody.*not found/.test(observation.waits ?? '');
  });
}

/** How a run without a right fails. */
async function failureWithout(right: Right, index: number): Promise<string> {
  const client = await clientWith(
    `without-${index}`,
    RIGHTS.filter((other) => other !== right),
  );
  return work(client).then(
    () => 'it works all the same',
    (error: Error) => error.message,
  );
}

const nameOf = ({ group, resource, verb }: Right) => `${verb} ${resource} in API group "${group}"`;

it('works with the rights of the role', async () => {
  await work(await clientWith('all', RIGHTS));
  await until('nothing is left', async () => (await cluster.objectsOf()).length === 0);
}, 120_000);

it('does not work with any of them taken away', async () => {
  const failures: Record<string, string> = {};
  const left = [...RIGHTS.entries()];
  const worker = async () => {
    for (let next = left.shift(); next; next = left.shift())
      failures[nameOf(next[1])] = await failureWithout(next[1], next[0]);
  };
  await Promise.all(Array.from({ length: AT_ONCE }, worker));
  const expected = RIGHTS.map((right) => {
    const { verb, resource, group } = right;
    const refusal = `cannot ${verb} resource "${resource}" in API group "${group}"`;
    return [nameOf(right), expect.stringContaining(resource === 'events' ? NO_REASON : refusal)];
  });
  expect(failures).toEqual(Object.fromEntries(expected));
}, 600_000);
