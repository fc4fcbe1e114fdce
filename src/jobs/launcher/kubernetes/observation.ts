import type { StatusCode } from '../../../protocol/status-codes.js';
import type { Observation } from '../job-launcher.js';
import type { BatchJob, Condition, ContainerStatus, Event, PersistentVolumeClaim, Pod } from './objects.js';

/** What a cluster has of one job. */
export interface JobParts {
  job: BatchJob | null;
  pods: readonly Pod[];
  claim: PersistentVolumeClaim | null;
  /** What the cluster warns of: of the Job where it has no pod, of the pod where a node prepares it. */
  warnings?: readonly Event[];
}

/** Seconds after which a warning that was not repeated counts as overcome: those that last are repeated every two minutes or sooner. */
const WARNED = 180;

const conditionOf = (conditions: readonly Condition[] | undefined, type: string) =>
  conditions?.find((condition) => condition.type === type && condition.status === 'True') ?? null;

/** Long messages of Kubernetes, cut to their first sentence. */
function brief(message: string | undefined): string {
  const [first = ''] = (message ?? '').trim().split(/(?<=[.!])\s|\n/);
  return first.replace(/\.$/, '').slice(0, 500) || 'no reason given';
}

/**
 * What the state of a job's parts means for the job. Pure.
 * @param pendingSeconds for how long a pod may wait for what it needs
 */
export function observationOf(parts: JobParts, now: Date, pendingSeconds: number): Observation {
  const { job, pods, claim, warnings = [] } = parts;
  if (!job) return { state: 'absent' };
  if (job.metadata.deletionTimestamp)
    return ended('pod_deleted', 'its Kubernetes Job was deleted. Start the job again.');
  if (job.spec.suspend) return suspendedObservation(job, now, pendingSeconds);
  const pod = newestOf(pods, now);
  const isOverdue = (pod ? waitOf(pod, now) : ageOf(job, now)) > pendingSeconds;
  if (!pod) return observationWithoutPod(job, isOverdue, warnings);
  const lasting = warnings.filter(({ lastTimestamp }) => !lastTimestamp || secondsSince(lastTimestamp, now) < WARNED);
  return podObservation(pod, claim, isOverdue, lasting);
}

/** The part of a job that does not itself tell why it does not go on, so that the cluster has to be asked for its warnings; null where there is none. */
export function silentPart({ job, pods, claim }: JobParts, now: Date): BatchJob | Pod | null {
  const pod = newestOf(pods, now);
  if (!pod) return job;
  return obstacleOf(pod, claim, [])?.code === 'node_preparing' ? pod : null;
}

function newestOf(pods: readonly Pod[], now: Date): Pod | undefined {
  return pods.toSorted((one, other) => ageOf(one, now) - ageOf(other, now))[0];
}

const ENDED_WELL: Observation = { state: 'ended', reason: null };

/** How a job ended that did not end well. */
type BadEnd = readonly [code: StatusCode, reason: string];

function ended(...[code, reason]: BadEnd): Observation {
  return { state: 'ended', reason, code };
}

/** What waits too long, ends. */
function waitsOrEnds(isOver: boolean, { code, what, change }: Obstacle): Observation {
  return isOver ? ended(code, `${what}. ${change}`) : { state: 'running', waits: what, code };
}

/** Seconds since an object was made. */
function ageOf({ metadata }: { metadata: { creationTimestamp?: string } }, now: Date): number {
  return secondsSince(metadata.creationTimestamp ?? now.toISOString(), now);
}

function secondsSince(time: string, now: Date): number {
  return (now.getTime() - Date.parse(time)) / 1000;
}

/** Seconds for which a pod has waited, if it waits: those in which its init containers ran are not among them. */
function waitOf(pod: Pod, now: Date): number {
  const ends = (pod.status?.initContainerStatuses ?? []).map(({ state }) => state?.terminated?.finishedAt);
  return Math.min(ageOf(pod, now), ...ends.filter((end) => end !== undefined).map((end) => secondsSince(end, now)));
}

/** A Job is made at rest and let go at once; whoever suspends it later has its pod deleted, and the shell with it. */
function suspendedObservation(job: BatchJob, now: Date, pendingSeconds: number): Observation {
  const since = conditionOf(job.status?.conditions, 'Suspended')?.lastTransitionTime;
  const isOver = (since ? secondsSince(since, now) : ageOf(job, now)) > pendingSeconds;
  return waitsOrEnds(isOver, {
    code: 'suspended',
    what: 'its Kubernetes Job is suspended',
    change: 'Nobody resumed it in time (JOB_PENDING_SECONDS). Start the job again.',
  });
}

function observationWithoutPod({ status }: BatchJob, isOverdue: boolean, warnings: readonly Event[]): Observation {
  if (conditionOf(status?.conditions, 'Complete')) return ENDED_WELL;
  const failure = conditionOf(status?.conditions, 'Failed') ?? conditionOf(status?.conditions, 'FailureTarget');
  if (failure?.reason === 'DeadlineExceeded') return ended(...END.deadline);
  if (failure) return ended(...END.podDeleted);
  const refusal = warnings.find(({ reason }) => reason === 'FailedCreate');
  const what = refusal
    ? `Kubernetes makes no pod of the job (${brief(refusal.message)})`
    : 'Kubernetes has made no pod of the job yet';
  return waitsOrEnds(isOverdue, { code: 'no_pod', what, change: NO_POD });
}

const NO_POD =
  'Change what refuses it: a quota or an admission rule of the namespace, a service account (JOB_MOUNT_SERVICE_ACCOUNT) or a runtime class (JOB_KATA_RUNTIME, JOB_AARCH64_RUNTIME) that does not exist; `kubectl describe job` tells more.';

const END = {
  podDeleted: ['pod_deleted', 'its pod was deleted, and the shell with it. Start the job again.'],
  deadline: [
    'pod_deadline',
    'its pod ran for longer than the cluster lets it (activeDeadlineSeconds). Start the job again.',
  ],
  preempted: [
    'preempted',
    'its pod gave way to a more important one. Give jobs a priority class (JOB_POD_SETTINGS, priorityClassName), and start the job again.',
  ],
  shutDown: ['node_lost', 'its node was shut down. Start the job again.'],
} as const satisfies Record<string, BadEnd>;

/** Why Kubernetes ended a pod, by the reason of its condition DisruptionTarget or of its status. */
const DISRUPTIONS: Readonly<Record<string, BadEnd>> = {
  PreemptionByScheduler: END.preempted,
  Preempting: END.preempted,
  DeletionByTaintManager: [
    'node_lost',
    'the node of its pod was lost or was tainted. Start the job again; tolerations in JOB_POD_SETTINGS decide how long pods wait for a node to come back.',
  ],
  NodeLost: ['node_lost', 'the node of its pod was lost. Start the job again.'],
  DeletionByPodGC: ['node_lost', 'the node of its pod has gone. Start the job again.'],
  EvictionByEvictionAPI: ['evicted', 'its pod was evicted, as when a node is drained. Start the job again.'],
  TerminationByKubelet: ['evicted', 'its node ran short of memory or disk, or was shut down. Start the job again.'],
  Terminated: END.shutDown,
  Shutdown: END.shutDown,
  DeadlineExceeded: END.deadline,
};

function podObservation(
  pod: Pod,
  claim: PersistentVolumeClaim | null,
  isOverdue: boolean,
  warnings: readonly Event[],
): Observation {
  const { status = {}, metadata } = pod;
  const disruption = disruptionOf(pod);
  if (disruption) return ended(...disruption);
  if (metadata.deletionTimestamp) return ended(...END.podDeleted);
  const failure = statusesOf(pod).map(containerFailure).find(Boolean);
  if (failure) return ended(...failure);
  if (status.phase === 'Succeeded') return ENDED_WELL;
  if (status.phase === 'Failed')
    return ended('pod_failed', `its pod failed (${brief(status.message ?? status.reason)}). Start the job again.`);
  const obstacle = obstacleOf(pod, claim, warnings);
  return obstacle ? waitsOrEnds(isOverdue || obstacle.forGood === true, obstacle) : { state: 'running' };
}

function disruptionOf({ status }: Pod): BadEnd | null {
  if (status?.reason === 'Evicted')
    return [
      'evicted',
      `its pod was evicted (${brief(status.message)}). Start the job again on a node with more room, or with a smaller job_mem_size.`,
    ];
  const target = conditionOf(status?.conditions, 'DisruptionTarget');
  return DISRUPTIONS[target?.reason ?? ''] ?? DISRUPTIONS[status?.reason ?? ''] ?? null;
}

/** All containers of a pod, in the order in which they begin. */
export function statusesOf({ status }: Pod): ContainerStatus[] {
  return [...(status?.initContainerStatuses ?? []), ...(status?.containerStatuses ?? [])];
}

function containerFailure({ name, state }: ContainerStatus): BadEnd | null {
  const end = state?.terminated;
  if (!end) return null;
  if (end.reason === 'OOMKilled')
    return [
      'out_of_memory',
      `the container ${name} took more memory than it may (five times job_mem_size). Start the job again with a larger job_mem_size, or raise DEFAULT_IMS_JOB_MEM_SIZE.`,
    ];
  if (end.exitCode === 0) return null;
  if (['ContainerCannotRun', 'StartError'].includes(end.reason ?? ''))
    return [
      'container_start',
      `the container ${name} could not be started (${brief(end.message)}): set JOB_WORKER_IMAGE to the worker image of this version.`,
    ];
  return [
    'container_exit',
    `the container ${name} ended with code ${end.exitCode} before it could say why. Its log tells more; start the job again.`,
  ];
}

/** What a pod waits for, and what to change where it waits in vain. */
interface Obstacle {
  code: StatusCode;
  what: string;
  change: string;
  /** Waiting does not help. */
  forGood?: boolean;
}

function obstacleOf(pod: Pod, claim: PersistentVolumeClaim | null, warnings: readonly Event[]): Obstacle | null {
  // A pod whose init containers work is pending too.
  if (pod.status?.phase !== 'Pending' || pod.status.initContainerStatuses?.some(({ state }) => state?.running))
    return null;
  const scheduled = pod.status.conditions?.find(({ type }) => type === 'PodScheduled');
  // A claim may stay unbound until its pod has a node, by the choice of its storage class: what the scheduler says comes first then.
  if (claim?.status?.phase !== 'Bound' && (!scheduled || /volume|claim/i.test(scheduled.message ?? '')))
    return claimObstacle(claim, scheduled);
  if (scheduled?.status !== 'True') return schedulingObstacle(scheduled);
  const waiting = statusesOf(pod).find(({ state }) => state?.waiting?.reason && state.waiting.message);
  return waiting ? containerObstacle(waiting) : startObstacle(warnings);
}

function claimObstacle(claim: PersistentVolumeClaim | null, scheduled: Condition | undefined): Obstacle {
  return {
    code: 'disk_pending',
    what: `the disk of the job is not there (${claim ? brief(scheduled?.message) : 'its PersistentVolumeClaim was deleted'})`,
    change:
      'Set JOB_STORAGE_CLASS to a storage class that can make volumes of five times build_env_size GiB, or ask for a smaller build_env_size.',
  };
}

function schedulingObstacle(scheduled: Condition | undefined): Obstacle {
  return {
    code: 'unschedulable',
    what: `no node takes the pod of the job (${brief(scheduled?.message)})`,
    change:
      'Ask for a smaller job_mem_size, wait until other jobs have ended, or change the nodes that JOB_POD_SETTINGS selects.',
  };
}

/** What keeps a node from preparing a pod, by the reason of a warning, and what to change. */
const PREPARATION: Readonly<Record<string, string>> = {
  FailedMount: 'Look at the volume of the job and at its storage class (JOB_STORAGE_CLASS), and start the job again.',
  FailedAttachVolume:
    'Look at the volume of the job and at its storage class (JOB_STORAGE_CLASS), and start the job again.',
  FailedCreatePodSandBox:
    'Look at the runtime class (JOB_KATA_RUNTIME, JOB_AARCH64_RUNTIME) and at the network of the node, and start the job again.',
};

function startObstacle(warnings: readonly Event[]): Obstacle {
  const warning = warnings.find(({ reason }) => reason && PREPARATION[reason]);
  if (warning)
    return {
      code: 'node_preparing',
      what: `the node cannot prepare the pod of the job (${warning.reason}: ${brief(warning.message)})`,
      change: PREPARATION[warning.reason!]!,
    };
  return {
    code: 'node_preparing',
    what: 'the node is preparing the pod of the job',
    change: 'It did not come to an end: `kubectl describe pod` tells what the node lacks. Start the job again.',
  };
}

function containerObstacle({ name, image, state }: ContainerStatus): Obstacle {
  const { reason, message } = state!.waiting!;
  if (reason === 'InvalidImageName')
    return {
      code: 'image_pull',
      what: `${JSON.stringify(image)} is no name of an image`,
      change: 'Set JOB_WORKER_IMAGE to the worker image of this version.',
      forGood: true,
    };
  if (['ErrImagePull', 'ImagePullBackOff', 'ErrImageNeverPull', 'RegistryUnavailable'].includes(reason!))
    return {
      code: 'image_pull',
      what: `the image ${image} cannot be pulled (${brief(message)})`,
      change:
        'Set JOB_WORKER_IMAGE to an image that the nodes can pull, and imagePullSecrets in JOB_POD_SETTINGS where it needs them.',
    };
  return {
    code: 'container_start',
    what: `the container ${name} cannot be started (${reason}: ${brief(message)})`,
    change: 'Where a secret is missing, make it in the namespace of jobs, or name another by JOB_S3_SECRET.',
  };
}
