import { setTimeout as sleep } from 'node:timers/promises';
import type { JobSpec } from '../../../protocol/job-spec.js';
import { type ConnectionInfo, JobLauncher, NotYet, type Observation } from '../job-launcher.js';
import { resourceNames } from '../resource-names.js';
import { type KubeClient, KubeFailure } from './kube-client.js';
import { LaunchFailures } from './launch-failures.js';
import {
  type BatchJob,
  type DestinationRule,
  type KubeObject,
  type OwnerReference,
  type PersistentVolumeClaim,
  type Pod,
  type Resource,
  RESOURCE,
  type Service,
} from './objects.js';
import { observationOf, statusesOf } from './observation.js';
import { ResourceWatch } from './resource-watch.js';
import {
  claimOf,
  clusterHost,
  configMapOf,
  customerHost,
  destinationRuleOf,
  JOB_LABEL,
  jobOf,
  JOBS_SELECTOR,
  type KubernetesSettings,
  ownerOf,
  serviceOf,
  signingKeysOf,
} from './resources.js';

/** Milliseconds between two looks at a log that has not begun, and at objects that are going away. */
const INTERVAL = 200;
/** Milliseconds for which `remove` waits for the last part to go. */
const PATIENCE = 2000;
/** Milliseconds that a cluster gets to make a pod before it is asked why it does not. */
const EVENTS_AFTER = 2000;
const SSH_PORT = 22;
/** Names the Secret with signing keys that a Job has. */
const KEYS_ANNOTATION = 'cray-ims/signing-keys';

export interface KubernetesLauncherOptions {
  settings: KubernetesSettings;
  /** Seconds for which a pod may wait for a node, a disk or an image, and a job for an API server that answers to take it. */
  pendingSeconds: number;
  /** Reads the certificates (PEM) that the artifact store is checked with; null where it needs none of its own. */
  readStoreCa: () => Promise<string | null>;
}

/**
 * Runs jobs as Jobs of a Kubernetes cluster. It keeps nothing but what it sees in the cluster: all names follow from the id of a job, so that
 * any number of servers, one after the other or at once, work on the same objects and never make a second one.
 */
export class KubernetesJobLauncher extends JobLauncher {
  private readonly jobs: ResourceWatch<BatchJob>;
  private readonly pods: ResourceWatch<Pod>;
  private readonly claims: ResourceWatch<PersistentVolumeClaim>;
  private readonly services: ResourceWatch<Service>;
  private readonly failures: LaunchFailures;
  private listener: () => void = () => {};
  private stopped = false;

  constructor(
    private readonly client: KubeClient,
    private readonly options: KubernetesLauncherOptions,
  ) {
    super();
    this.failures = new LaunchFailures(options.settings.namespace, options.pendingSeconds);
    const onChange = () => this.listener();
    this.jobs = new ResourceWatch(client, RESOURCE.job, JOBS_SELECTOR, onChange);
    this.pods = new ResourceWatch(client, RESOURCE.pod, JOBS_SELECTOR, onChange);
    this.claims = new ResourceWatch(client, RESOURCE.claim, JOBS_SELECTOR, onChange);
    this.services = new ResourceWatch(client, RESOURCE.service, JOBS_SELECTOR, onChange);
  }

  override async address(jobId: string): Promise<ConnectionInfo> {
    const { settings } = this.options;
    return {
      customer_access: { host: customerHost(jobId, settings), port: SSH_PORT },
      'cluster.local': { host: clusterHost(jobId, settings), port: SSH_PORT },
    };
  }

  /** The Job is made first, at rest, as the owner of the other parts; it is let go when they are there. */
  override async launch(spec: JobSpec): Promise<void> {
    const { settings } = this.options;
    if (this.stopped) throw new Error('the server stops');
    await this.refusing(async () => {
      const job = await this.makeJob(spec);
      if (!job.spec.suspend) return;
      const owner = ownerOf(job);
      const storeCa = await this.options.readStoreCa();
      const [keys] = await Promise.all([
        this.copySigningKeys(spec, owner),
        this.make(RESOURCE.configMap, configMapOf(spec, settings, owner, storeCa)),
        this.make(RESOURCE.claim, claimOf(spec, settings, owner)).then((made) => made && this.claims.learn(made)),
        this.make(RESOURCE.service, serviceOf(spec, settings, owner)).then((made) => made && this.services.learn(made)),
        this.makeDestinationRule(() => destinationRuleOf(spec, settings, owner)),
      ]);
      this.jobs.forget(job.metadata.name);
      const change = { metadata: { annotations: { [KEYS_ANNOTATION]: keys } }, spec: { suspend: false } };
      this.jobs.learn(await this.client.patch(RESOURCE.job, job.metadata.name, change));
    }, spec.job_id);
  }

  /** What the API server refuses for good, or for too long, is said to the user, and what was made is removed. */
  private async refusing(steps: () => Promise<void>, jobId: string): Promise<void> {
    try {
      await steps();
    } catch (error) {
      const refusal = this.failures.refusalAfter(error, jobId);
      if (!refusal) throw error;
      // What goes slowly, goes when the job that ended by this is released.
      await this.remove(jobId).catch(ignoreNotYet);
      throw refusal;
    }
    this.failures.forget(jobId);
  }

  private async makeJob(spec: JobSpec): Promise<BatchJob> {
    const wanted = jobOf(spec, this.options.settings);
    const { name } = wanted.metadata;
    const made = await this.make(RESOURCE.job, wanted);
    // One that was there before: a launch that was interrupted, or one that another server is at.
    const job = made ?? (await this.client.list(RESOURCE.job, selectorOf(spec.job_id))).items[0];
    if (!job) throw new Error(`the Kubernetes Job ${name} is going away`);
    this.jobs.learn(job);
    return job;
  }

  /** Creates an object; null where it is there already. */
  private async make<T extends KubeObject>(resource: Resource<T>, object: T): Promise<T | null> {
    return this.client.create(resource, object).catch((error: unknown) => {
      if (error instanceof KubeFailure && error.status === 409) return null;
      throw error;
    });
  }

  private async makeDestinationRule(build: () => DestinationRule): Promise<void> {
    if (await this.client.offers(RESOURCE.destinationRule.api)) await this.make(RESOURCE.destinationRule, build());
  }

  /** Pods have no secrets of another namespace. Returns the name of the copy; null where the job gets none. */
  private async copySigningKeys(spec: JobSpec, owner: OwnerReference): Promise<string | null> {
    if (spec.job_type !== 'create') return null;
    const { settings } = this.options;
    const { secret, namespace } = settings.signingKeys;
    const keys = await this.client.get(RESOURCE.secret, secret, namespace);
    if (!keys) return null;
    const copy = signingKeysOf(spec, settings, owner, keys);
    await this.make(RESOURCE.secret, copy);
    return copy.metadata.name;
  }

  override async observe(jobId: string): Promise<Observation> {
    const names = namesOf(jobId);
    const [job, claims, pods] = await Promise.all([this.findJob(jobId), this.claims.all(), this.podsOf(jobId)]);
    const parts = {
      job,
      refusal: job && !pods.length ? await this.refusalOf(job) : null,
      claim: claims.get(names.kubernetes_pvc) ?? null,
      pods,
    };
    const observation = observationOf(parts, new Date(), this.options.pendingSeconds);
    if (observation.state !== 'running') return observation;
    const externalIp = await this.externalIpOf(jobId);
    const secret = job?.metadata.annotations?.[KEYS_ANNOTATION];
    return { ...observation, ...(externalIp !== null && { externalIp }), ...(secret && { secret }) };
  }

  /** What the watch does not know may have been made just now, by a server that has died since: only the cluster can say that it is not there. */
  private async findJob(jobId: string): Promise<BatchJob | null> {
    const known = await this.jobs.all();
    const found = jobNames(jobId).find((name) => known.has(name));
    if (found) return known.get(found)!;
    const { items } = await this.client.list(RESOURCE.job, selectorOf(jobId));
    return items[0] ?? null;
  }

  /** Why no pod is made of a Job; null while it is not known. */
  private async refusalOf({ metadata }: BatchJob): Promise<string | null> {
    if (Date.now() - Date.parse(metadata.creationTimestamp!) < EVENTS_AFTER) return null;
    const warnings = await this.client.warnings(metadata.name).catch(() => []);
    return warnings.find(({ reason }) => reason === 'FailedCreate')?.message ?? null;
  }

  private async externalIpOf(jobId: string): Promise<string | null> {
    const service = (await this.services.all()).get(namesOf(jobId).kubernetes_service);
    return service?.status?.loadBalancer?.ingress?.[0]?.ip ?? null;
  }

  private async podsOf(jobId: string): Promise<Pod[]> {
    return [...(await this.pods.all()).values()].filter((pod) => jobIdOf(pod) === jobId);
  }

  override async *log(
    jobId: string,
    container: string,
    from: number,
    follow: AbortSignal | null,
  ): AsyncGenerator<Buffer> {
    const pod = await this.podWithLog(jobId, container, follow);
    if (!pod) return;
    let skipped = 0;
    try {
      // There is no way to ask for the part behind an offset.
      for await (const chunk of this.client.log(pod.metadata.name, container, follow !== null, follow)) {
        const rest = chunk.subarray(Math.max(0, from - skipped));
        skipped += chunk.length;
        if (rest.length) yield rest;
      }
    } catch (error) {
      if (!hasNoLog(error)) throw error;
    }
  }

  /** The pod of a job when a container of it has begun; null where it has none. With `follow` it is waited for while the job runs. */
  private async podWithLog(jobId: string, container: string, follow: AbortSignal | null): Promise<Pod | null> {
    for (;;) {
      const goesOn = follow && !follow.aborted && (await this.observe(jobId)).state === 'running';
      const pod = (await this.podsOf(jobId)).find((candidate) => begunIn(candidate).includes(container));
      if (pod || !goesOn) return pod ?? null;
      await sleep(INTERVAL);
    }
  }

  override async release(jobId: string): Promise<void> {
    const { items: pods } = await this.client.list(RESOURCE.pod, selectorOf(jobId));
    if (pods.some((pod) => begunIn(pod).length)) await this.endPods(pods);
    else await this.deleteJob(jobId);
    const { kubernetes_service, kubernetes_pvc } = namesOf(jobId);
    await this.client.delete(RESOURCE.service, kubernetes_service);
    await this.client.delete(RESOURCE.claim, kubernetes_pvc);
    if (await this.client.offers(RESOURCE.destinationRule.api))
      await this.client.delete(RESOURCE.destinationRule, kubernetes_service);
  }

  /** Has the nodes end what runs. Pods stay with their logs, which those that are deleted do not. */
  private async endPods(pods: readonly Pod[]): Promise<void> {
    for (const { metadata, status } of pods) {
      if (['Succeeded', 'Failed'].includes(status?.phase ?? '')) continue;
      await this.client
        .patch(RESOURCE.pod, metadata.name, { spec: { activeDeadlineSeconds: 1 } })
        .catch((error: unknown) => {
          if (!(error instanceof KubeFailure) || error.status !== 404) throw error;
        });
    }
  }

  /** What no node has begun has no log, and nothing else would ever end it: the deadline of a pod is kept by its node. */
  private async deleteJob(jobId: string): Promise<void> {
    for (const name of jobNames(jobId)) await this.client.delete(RESOURCE.job, name);
  }

  /** Deletes all parts again and again until none is left, or the cluster takes longer. */
  override async remove(jobId: string): Promise<void> {
    for (const deadline = Date.now() + PATIENCE; ; await sleep(INTERVAL)) {
      if (!(await this.deleteParts(jobId))) break;
      if (Date.now() > deadline) throw new NotYet('Kubernetes has not yet removed all parts of the job');
    }
    this.forget(jobId);
  }

  /** Whether anything is left. */
  private async deleteParts(jobId: string): Promise<boolean> {
    const names = namesOf(jobId);
    const parts: [Resource, string][] = [
      ...jobNames(jobId).map((name): [Resource, string] => [RESOURCE.job, name]),
      [RESOURCE.service, names.kubernetes_service],
      [RESOURCE.claim, names.kubernetes_pvc],
      [RESOURCE.configMap, names.kubernetes_configmap],
    ];
    if (await this.client.offers(RESOURCE.destinationRule.api))
      parts.push([RESOURCE.destinationRule, names.kubernetes_service]);
    const left = await Promise.all(parts.map(([resource, name]) => this.client.delete(resource, name)));
    const { items } = await this.client.list(RESOURCE.pod, selectorOf(jobId));
    return left.includes(true) || items.length > 0;
  }

  private forget(jobId: string): void {
    this.failures.forget(jobId);
    const names = namesOf(jobId);
    for (const name of jobNames(jobId)) this.jobs.forget(name);
    this.claims.forget(names.kubernetes_pvc);
    this.services.forget(names.kubernetes_service);
    void this.podsOf(jobId).then((pods) => pods.forEach(({ metadata }) => this.pods.forget(metadata.name)));
  }

  override async list(): Promise<string[]> {
    const all = await Promise.all([this.jobs.all(), this.pods.all(), this.claims.all(), this.services.all()]);
    const ids = all.flatMap((known) => [...known.values()].map(jobIdOf));
    return [...new Set(ids.filter((id) => id !== null))];
  }

  /** The cluster itself decides how many pods run; others wait for a node. Rejects while the cluster cannot be asked. */
  override async free(): Promise<number> {
    const silence = this.jobs.silence;
    if (silence) throw silence;
    return Infinity;
  }

  override watch(listener: () => void): void {
    this.listener = listener;
  }

  /** Jobs go on: they are of the cluster, not of a server. */
  override async stop(): Promise<void> {
    this.stopped = true;
    await Promise.all([this.jobs, this.pods, this.claims, this.services].map((known) => known.stop()));
  }

  override async ready(): Promise<void> {
    const watches = [this.jobs, this.pods, this.claims, this.services];
    await Promise.all(watches.map((watch) => watch.all()));
    const silent = watches.find(({ silence }) => silence);
    if (silent) throw silent.silence!;
  }
}

/** Names that do not depend on the type of the job. */
function namesOf(jobId: string) {
  return resourceNames(jobId, 'customize');
}

/** A job's id does not tell its type, which is part of the name of its Job. */
function jobNames(jobId: string): string[] {
  return (['customize', 'create'] as const).map((jobType) => resourceNames(jobId, jobType).kubernetes_job);
}

function selectorOf(jobId: string): string {
  return `${JOBS_SELECTOR},${JOB_LABEL}=${jobId}`;
}

function jobIdOf({ metadata }: KubeObject): string | null {
  return metadata.labels?.[JOB_LABEL] ?? null;
}

function ignoreNotYet(error: unknown): void {
  if (!(error instanceof NotYet)) throw error;
}

/** The containers of an evicted or lost pod end without having been there, and a pod may go at any time: they have no log then. */
function hasNoLog(error: unknown): boolean {
  return error instanceof KubeFailure && (error.status === 400 || error.status === 404);
}

/** Names of the containers of a pod that have begun. */
function begunIn(pod: Pod): string[] {
  return statusesOf(pod)
    .filter(({ state }) => state?.running ?? state?.terminated)
    .map(({ name }) => name);
}
