import { createHash } from 'node:crypto';
import type { Arch } from '../../../protocol/arch.js';
import { linkedPaths, POD_PATHS } from '../../../protocol/pod-paths.js';
import type { JobSpec, PhaseName } from '../../../protocol/job-spec.js';
import { SPEC_FILE } from '../../../protocol/signals.js';
import { CONTAINER_OF_PHASE } from '../container-names.js';
import { LaunchRefused } from '../job-launcher.js';
import { planPhases } from '../phase-plan.js';
import { resourceNames, signingKeysName, specSecretName } from '../resource-names.js';
import type {
  BatchJob,
  ConfigMap,
  Container,
  DestinationRule,
  EnvVar,
  KubeObject,
  ObjectMeta,
  OwnerReference,
  PersistentVolumeClaim,
  PodSpec,
  PullPolicy,
  Resource,
  Resources,
  Secret,
  SecurityContext,
  Service,
  Toleration,
  VolumeMount,
} from './objects.js';

/*
 * The Kubernetes objects of a job, made from nothing but its specification and the settings. Values of users stand in values of JSON only:
 * in job.json, which the worker reads; never in a name, in a command line or in a text that something parses.
 */

/** What a site decides about the pods of jobs. Names are those of the pod's own members. */
export interface PodSettings {
  nodeSelector?: Record<string, string>;
  tolerations?: Toleration[];
  annotations?: Record<string, string>;
  labels?: Record<string, string>;
  priorityClassName?: string;
  imagePullSecrets?: { name: string }[];
  /** Processor time of each container, as `500m`; none where it is not set. */
  cpuRequest?: string;
  cpuLimit?: string;
}

/** What a site decides about jobs on Kubernetes. */
export interface KubernetesSettings {
  namespace: string;
  /** Base url at which workers reach the servers: no other servers have it, whatever their database. */
  serverUrl: string;
  workerImage: string;
  /** The worker with what builds from recipes need. */
  builderImage: string | null;
  /** Secret with the public keys by which packages are checked; it may be missing. */
  signingKeys: { namespace: string; secret: string };
  pullPolicy: PullPolicy;
  /** Seconds for which the cluster keeps a Job that has ended, with its pod and disk. */
  podRetentionSeconds: number;
  customerAccess: { subnet: string; domain: string; addressPool: string };
  kataRuntime: string;
  aarch64Runtime: string;
  /** Service account of jobs that may mount; empty for the default one. */
  mountServiceAccount: string;
  /** Storage class of claims; null for the default one of the cluster. */
  storageClass: string | null;
  /** Secret in the namespace of jobs with `access_key` and `secret_key` of the artifact store. */
  storeSecret: string;
  store: { endpoint: string; region: string; sslValidate: boolean | string };
  diskReserveMib: number;
  /** Whether programs of images of another architecture than the node's are run by an emulator. */
  emulation: boolean;
  pod: PodSettings;
}

/** The port of sshd, in the pod and outside. */
const SSH_PORT = 22;
/** As the original: a job asks for `job_mem_size` and may take five times that. */
const MEMORY_BURST = 5;
/** As the original: source, changes, unpacked tree and new image need room together. */
const DISK_FACTOR = 5;
/** Part of the memory of a job, MiB, that containers ask for which mostly wait. */
const WAITING_REQUEST = '256Mi';
/** Seconds between the request to end and the end by force. The worker ends at once. */
const GRACE_SECONDS = 10;
/** Content of the bundle of CA certificates of the artifact store, in the ConfigMap. */
const STORE_CA_FILE = 'store-ca.pem';

/** Label by which all parts of a job are found; its value is the job's id. */
export const JOB_LABEL = 'app.kubernetes.io/instance';
const MARKS = { 'app.kubernetes.io/name': 'ims-job', 'app.kubernetes.io/managed-by': 'cray-ims' };
/** Finds the objects of all jobs. */
export const JOBS_SELECTOR = Object.entries(MARKS)
  .map(([name, value]) => `${name}=${value}`)
  .join(',');

function labelsOf({ job_id }: JobSpec): Record<string, string> {
  return { ...MARKS, [JOB_LABEL]: job_id };
}

/** Label that tells whose job it is where several services run theirs in one namespace. */
const SERVER_LABEL = 'cray-ims/server';

function serverMark({ serverUrl }: KubernetesSettings): string {
  return createHash('sha256').update(serverUrl).digest('hex').slice(0, 16);
}

/** Whether an object is of a job of these servers, or may be: jobs of earlier versions do not tell. */
export function mayBeOurs({ metadata }: KubeObject, settings: KubernetesSettings): boolean {
  const mark = metadata.labels?.[SERVER_LABEL];
  return mark === undefined || mark === serverMark(settings);
}

function metadataOf(spec: JobSpec, name: string, settings: KubernetesSettings, owner?: OwnerReference): ObjectMeta {
  return {
    name,
    namespace: settings.namespace,
    labels: { ...labelsOf(spec), [SERVER_LABEL]: serverMark(settings) },
    ...(owner && { ownerReferences: [owner] }),
  };
}

/** The name under which clients outside of the cluster reach the shell of a job. */
export function customerHost(jobId: string, { customerAccess }: KubernetesSettings): string {
  return `${jobId}.ims.${customerAccess.subnet}.${customerAccess.domain}`;
}

/** The name under which pods reach the shell of a job. */
export function clusterHost(jobId: string, { namespace }: KubernetesSettings): string {
  return `${resourceNames(jobId, 'customize').kubernetes_service}.${namespace}.svc.cluster.local`;
}

/** Names the Job as the owner of the other parts, so that they go when it goes. */
export function ownerOf({ metadata }: BatchJob): OwnerReference {
  return { apiVersion: 'batch/v1', kind: 'Job', name: metadata.name, uid: metadata.uid! };
}

/** What the worker is told. Whoever may look at what runs in the namespace may not have the token of a job. */
export function specSecretOf(spec: JobSpec, settings: KubernetesSettings, owner: OwnerReference): Secret {
  return {
    apiVersion: 'v1',
    kind: 'Secret',
    metadata: metadataOf(spec, specSecretName(spec.job_id), settings, owner),
    data: { [SPEC_FILE]: Buffer.from(JSON.stringify(spec, null, 2)).toString('base64') },
  };
}

/**
 * What is no secret: the key that opens the shell, for operators, and what the worker trusts.
 * @param storeCa certificates (PEM) with which the artifact store is checked, where the site names some
 */
export function configMapOf(
  spec: JobSpec,
  settings: KubernetesSettings,
  owner: OwnerReference,
  storeCa: string | null,
): ConfigMap {
  return {
    apiVersion: 'v1',
    kind: 'ConfigMap',
    metadata: metadataOf(spec, resourceNames(spec.job_id, spec.job_type).kubernetes_configmap, settings, owner),
    data: {
      authorized_keys: spec.public_key,
      ...(storeCa !== null && { [STORE_CA_FILE]: storeCa }),
    },
  };
}

/** The keys of the site, in the namespace of the pod that needs them. */
export function signingKeysOf(
  spec: JobSpec,
  settings: KubernetesSettings,
  owner: OwnerReference,
  { data }: Secret,
): Secret {
  return {
    apiVersion: 'v1',
    kind: 'Secret',
    metadata: metadataOf(spec, signingKeysName(spec.job_id), settings, owner),
    data: { ...data },
  };
}

/** The disk of a job. */
export function claimOf(spec: JobSpec, settings: KubernetesSettings, owner: OwnerReference): PersistentVolumeClaim {
  return {
    apiVersion: 'v1',
    kind: 'PersistentVolumeClaim',
    metadata: metadataOf(spec, resourceNames(spec.job_id, spec.job_type).kubernetes_pvc, settings, owner),
    spec: {
      accessModes: ['ReadWriteOnce'],
      resources: { requests: { storage: `${DISK_FACTOR * spec.build_env_size}Gi` } },
      ...(settings.storageClass !== null && { storageClassName: settings.storageClass }),
    },
  };
}

/** The address of a job's shell. */
export function serviceOf(spec: JobSpec, settings: KubernetesSettings, owner: OwnerReference): Service {
  const metadata = metadataOf(spec, resourceNames(spec.job_id, spec.job_type).kubernetes_service, settings, owner);
  return {
    apiVersion: 'v1',
    kind: 'Service',
    metadata: {
      ...metadata,
      annotations: {
        'external-dns.alpha.kubernetes.io/hostname': customerHost(spec.job_id, settings),
        'metallb.universe.tf/address-pool': settings.customerAccess.addressPool,
      },
    },
    spec: {
      type: 'LoadBalancer',
      selector: labelsOf(spec),
      // The job says when its shell is open; the address need not wait for a probe to say so again.
      publishNotReadyAddresses: true,
      ports: [{ name: 'ssh', protocol: 'TCP', port: SSH_PORT, targetPort: SSH_PORT }],
    },
  };
}

/** Has the service mesh leave connections to the shell alone: ssh brings its own encryption. */
export function destinationRuleOf(
  spec: JobSpec,
  settings: KubernetesSettings,
  owner: OwnerReference,
  { api }: Resource<DestinationRule>,
): DestinationRule {
  return {
    apiVersion: api.replace('/apis/', ''),
    kind: 'DestinationRule',
    metadata: metadataOf(spec, resourceNames(spec.job_id, spec.job_type).kubernetes_service, settings, owner),
    spec: { host: clusterHost(spec.job_id, settings), trafficPolicy: { tls: { mode: 'DISABLE' } } },
  };
}

/** The Job, at rest: its pod is made when all that it needs is there. */
export function jobOf(spec: JobSpec, settings: KubernetesSettings): BatchJob {
  const { pod } = settings;
  return {
    apiVersion: 'batch/v1',
    kind: 'Job',
    metadata: metadataOf(spec, resourceNames(spec.job_id, spec.job_type).kubernetes_job, settings),
    spec: {
      backoffLimit: 0,
      suspend: true,
      // A pod that was deleted is a job that failed, never a second pod on the same disk.
      podReplacementPolicy: 'Failed',
      ttlSecondsAfterFinished: settings.podRetentionSeconds,
      template: {
        metadata: {
          labels: {
            ...pod.labels,
            ...labelsOf(spec),
            [SERVER_LABEL]: serverMark(settings),
            'sidecar.istio.io/inject': 'false',
          },
          annotations: { 'sidecar.istio.io/inject': 'false', ...pod.annotations },
        },
        spec: podOf(spec, settings),
      },
    },
  };
}

function podOf(spec: JobSpec, settings: KubernetesSettings): PodSpec {
  const { pod, mountServiceAccount } = settings;
  const names = resourceNames(spec.job_id, spec.job_type);
  return {
    restartPolicy: 'Never',
    automountServiceAccountToken: false,
    enableServiceLinks: false,
    terminationGracePeriodSeconds: GRACE_SECONDS,
    ...(spec.require_dkms && mountServiceAccount && { serviceAccountName: mountServiceAccount }),
    ...runtimeClassOf(spec, settings),
    ...(pod.priorityClassName && { priorityClassName: pod.priorityClassName }),
    ...(pod.nodeSelector && { nodeSelector: pod.nodeSelector }),
    ...(pod.tolerations && { tolerations: pod.tolerations }),
    ...(pod.imagePullSecrets && { imagePullSecrets: pod.imagePullSecrets }),
    ...(!spec.require_dkms && { securityContext: { seccompProfile: { type: 'RuntimeDefault' } } }),
    affinity: { ...spreadOverHosts(), ...preferOwnNodes(spec) },
    ...containersOf(spec, settings),
    volumes: [
      {
        name: 'spec',
        projected: {
          sources: [
            { secret: { name: specSecretName(spec.job_id) } },
            { configMap: { name: names.kubernetes_configmap } },
          ],
        },
      },
      { name: 'work', persistentVolumeClaim: { claimName: names.kubernetes_pvc } },
      ...(spec.job_type === 'create'
        ? [{ name: 'keys', secret: { secretName: signingKeysName(spec.job_id), optional: true } }]
        : []),
    ],
  };
}

/** What builds kernel modules, or is not of the node's kind, runs in a virtual machine where the site has them. */
function runtimeClassOf({ require_dkms, arch }: JobSpec, settings: KubernetesSettings) {
  if (!require_dkms) return {};
  const runtimeClassName = arch === 'aarch64' ? settings.aarch64Runtime : settings.kataRuntime;
  return runtimeClassName ? { runtimeClassName } : {};
}

/** Names that Kubernetes has for architectures. */
const ARCH_OF_NODES: Record<Arch, string> = { x86_64: 'amd64', aarch64: 'arm64' };

/** Programs of the image run by themselves on nodes of its kind; on others they may be emulated, or none may be run at all. */
function preferOwnNodes({ arch }: JobSpec): Pick<PodSpec['affinity'], 'nodeAffinity'> {
  const isOwn = { key: 'kubernetes.io/arch', operator: 'In' as const, values: [ARCH_OF_NODES[arch]] };
  const preference = { matchExpressions: [isOwn] };
  return { nodeAffinity: { preferredDuringSchedulingIgnoredDuringExecution: [{ weight: 100, preference }] } };
}

function spreadOverHosts(): Pick<PodSpec['affinity'], 'podAntiAffinity'> {
  const podAffinityTerm = { topologyKey: 'kubernetes.io/hostname', labelSelector: { matchLabels: MARKS } };
  return { podAntiAffinity: { preferredDuringSchedulingIgnoredDuringExecution: [{ weight: 1, podAffinityTerm }] } };
}

/** The last phases run side by side, those before one after the other. */
function containersOf(spec: JobSpec, settings: KubernetesSettings): Pick<PodSpec, 'initContainers' | 'containers'> {
  const plan = planPhases(spec);
  const make = (phases: readonly PhaseName[]) => phases.map((phase) => containerOf(phase, spec, settings));
  // Operators look at the first container.
  return { initContainers: make(plan.slice(0, -1).flat()), containers: make(plan.at(-1)!.toReversed()) };
}

/** @throws LaunchRefused where the site has no image to build with */
function imageOf({ job_type }: JobSpec, { builderImage, workerImage }: KubernetesSettings): string {
  if (job_type === 'customize') return workerImage;
  if (builderImage) return builderImage;
  throw new LaunchRefused(
    'this site builds no images from recipes: set JOB_BUILDER_IMAGE to the builder image of this version',
  );
}

function containerOf(phase: PhaseName, spec: JobSpec, settings: KubernetesSettings): Container {
  const isShell = phase === 'shell';
  return {
    name: CONTAINER_OF_PHASE[phase],
    image: imageOf(spec, settings),
    imagePullPolicy: settings.pullPolicy,
    args: [phase, `${POD_PATHS.spec}/${SPEC_FILE}`],
    env: environmentOf(phase, spec, settings),
    volumeMounts: [{ name: 'spec', mountPath: POD_PATHS.spec, readOnly: true }, ...workMounts(phase, spec)],
    resources: resourcesOf(phase, spec, settings),
    securityContext: securityOf(phase, spec),
    ...(isShell && { ports: [{ name: 'ssh', containerPort: SSH_PORT, protocol: 'TCP' as const }] }),
  };
}

/**
 * The user of a shell is root in its container: it gets no more of the disk than it works on, and no keys of the store. So what the
 * other containers trust cannot be swapped for links that lead elsewhere.
 */
function workMounts(phase: PhaseName, { job_type }: JobSpec): VolumeMount[] {
  const work = { name: 'work', mountPath: POD_PATHS.directory };
  if (phase === 'build-image') return [work, { name: 'keys', mountPath: POD_PATHS.signingKeys, readOnly: true }];
  if (phase !== 'shell') return [work];
  return linkedPaths(job_type).map(({ subPath, mountPath, readOnly }) => ({
    name: 'work',
    mountPath,
    subPath,
    ...(readOnly && { readOnly }),
  }));
}

/** Phases that need the artifact store. Whatever else runs, as scripts of a recipe do, has no keys of it. */
const WITH_STORE: ReadonlySet<PhaseName> = new Set(['fetch-image', 'fetch-recipe', 'finish']);

function environmentOf(phase: PhaseName, spec: JobSpec, settings: KubernetesSettings): EnvVar[] {
  const common: EnvVar[] = [
    { name: 'JOB_DIRECTORY', value: POD_PATHS.directory },
    { name: 'JOB_SANDBOX', value: 'pod' },
    { name: 'DISK_RESERVE_MIB', value: String(settings.diskReserveMib) },
    { name: 'AWS_SDK_JS_NODE_VERSION_SUPPORT_WARNING_DISABLED', value: 'true' },
    threadsOf(spec),
    ...(settings.emulation && canEmulate(spec) ? [{ name: 'EMULATION', value: 'true' }] : []),
  ];
  if (phase === 'build-image') return [...common, { name: 'SIGNING_KEYS_DIR', value: POD_PATHS.signingKeys }];
  return WITH_STORE.has(phase) ? [...common, ...storeEnvironment(settings)] : common;
}

/** Threads that compress; without a limit of the container this is what the node has. Node reads it before any program can set it. */
function threadsOf({ packing }: JobSpec): EnvVar {
  const name = 'UV_THREADPOOL_SIZE';
  if (packing.processors > 0) return { name, value: String(packing.processors) };
  return { name, valueFrom: { resourceFieldRef: { resource: 'limits.cpu' } } };
}

/** Only what is privileged can register the emulator: of a job, what runs programs of the image. */
function canEmulate(spec: JobSpec): boolean {
  return securityOf(spec.job_type === 'create' ? 'build-image' : 'shell', spec).privileged === true;
}

function storeEnvironment({ store, storeSecret }: KubernetesSettings): EnvVar[] {
  const { sslValidate } = store;
  const key = (name: string) => ({ valueFrom: { secretKeyRef: { name: storeSecret, key: name } } });
  return [
    { name: 'S3_ENDPOINT', value: store.endpoint },
    { name: 'S3_REGION', value: store.region },
    {
      name: 'S3_SSL_VALIDATE',
      value: typeof sslValidate === 'boolean' ? String(sslValidate) : `${POD_PATHS.spec}/${STORE_CA_FILE}`,
    },
    { name: 'S3_ACCESS_KEY', ...key('access_key') },
    { name: 'S3_SECRET_KEY', ...key('secret_key') },
  ];
}

/** Phases that ask for the memory of the job; they never run at once. */
const LARGE: ReadonlySet<PhaseName> = new Set(['shell', 'build-image']);

function resourcesOf(phase: PhaseName, { job_mem_size }: JobSpec, { pod }: KubernetesSettings): Resources {
  return {
    requests: {
      memory: LARGE.has(phase) ? `${job_mem_size}Gi` : WAITING_REQUEST,
      ...(pod.cpuRequest && { cpu: pod.cpuRequest }),
    },
    limits: { memory: `${MEMORY_BURST * job_mem_size}Gi`, ...(pod.cpuLimit && { cpu: pod.cpuLimit }) },
  };
}

/** What is needed to keep files as an image has them: owners, modes, capabilities of files, devices. */
const FILE_CAPABILITIES = ['CHOWN', 'DAC_OVERRIDE', 'FOWNER', 'FSETID', 'MKNOD', 'SETFCAP'];
/** Templates of recipes are filled in by nobody. */
const OTHER_USERS = ['SETUID', 'SETGID'];

/** Phases that only write files of their own. */
const CONFINED: ReadonlySet<PhaseName> = new Set(['fetch-image', 'wait-for-repos', 'build-ca-rpm']);

function securityOf(phase: PhaseName, { require_dkms }: JobSpec): SecurityContext {
  if (CONFINED.has(phase)) return { allowPrivilegeEscalation: false, capabilities: { drop: ['ALL'] } };
  // Package managers work in the new root: they mount there, and make devices.
  if (require_dkms || phase === 'build-image') return { privileged: true, capabilities: { add: ['SYS_ADMIN'] } };
  // A shell without setuid programs would be a poor one; the capabilities of its root are the runtime's default.
  if (phase === 'shell') return {};
  const add = phase === 'fetch-recipe' ? [...FILE_CAPABILITIES, ...OTHER_USERS] : FILE_CAPABILITIES;
  return { allowPrivilegeEscalation: false, capabilities: { drop: ['ALL'], add } };
}
