import type { Observation } from '../job-launcher.js';
import type { BatchJob, Condition, ContainerStatus, PersistentVolumeClaim, Pod } from './objects.js';

/** What a cluster has of one job. */
export interface JobParts {
  job: BatchJob | null;
  pods: readonly Pod[];
  claim: PersistentVolumeClaim | null;
  /** What the cluster says of a Job that has no pod. */
  refusal?: string | null;
}

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
export function observationOf({ job, pods, claim, refusal }: JobParts, now: Date, pendingSeconds: number): Observation {
  if (!job) return { state: 'absent' };
  if (job.metadata.deletionTimestamp) return ended('its Kubernetes Job was deleted. Start the job again.');
  if (job.spec.suspend) return suspendedObservation(job, now, pendingSeconds);
  const pod = pods.toSorted((one, other) => ageOf(one, now) - ageOf(other, now))[0];
  const isOverdue = (pod ? waitOf(pod, now) : ageOf(job, now)) > pendingSeconds;
  return pod ? podObservation(pod, claim, isOverdue) : observationWithoutPod(job, isOverdue, refusal ?? null);
}

function ended(reason: string | null): Observation {
  return { state: 'ended', reason };
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
  const waits = 'its Kubernetes Job is suspended';
  if ((since ? secondsSince(since, now) : ageOf(job, now)) <= pendingSeconds) return { state: 'running', waits };
  return ended(`${waits}, and was not resumed in time (JOB_PENDING_SECONDS). Start the job again.`);
}

function observationWithoutPod({ status }: BatchJob, isOverdue: boolean, refusal: string | null): Observation {
  if (conditionOf(status?.conditions, 'Complete')) return ended(null);
  const failure = conditionOf(status?.conditions, 'Failed') ?? conditionOf(status?.conditions, 'FailureTarget');
  if (failure?.reason === 'DeadlineExceeded') return ended(REASON.deadline);
  if (failure) return ended(REASON.podDeleted);
  const waits = refusal
    ? `Kubernetes makes no pod of the job (${brief(refusal)})`
    : 'Kubernetes has made no pod of the job yet';
  return isOverdue ? ended(`${waits}. ${NO_POD}`) : { state: 'running', waits };
}

const NO_POD =
  'Change what refuses it: a quota or an admission rule of the namespace, a service account (JOB_MOUNT_SERVICE_ACCOUNT) or a runtime class (JOB_KATA_RUNTIME, JOB_AARCH64_RUNTIME) that does not exist; `kubectl describe job` tells more.';

const REASON = {
  podDeleted: 'its pod was deleted, and the shell with it. Start the job again.',
  deadline: 'its pod ran for longer than the cluster lets it (activeDeadlineSeconds). Start the job again.',
} as const;

/** Why Kubernetes ended a pod, by the reason of its condition DisruptionTarget or of its status. */
const DISRUPTIONS: Readonly<Record<string, string>> = {
  PreemptionByScheduler:
    'its pod gave way to a more important one. Give jobs a priority class (JOB_POD_SETTINGS, priorityClassName), and start the job again.',
  Preempting:
    'its pod gave way to a more important one. Give jobs a priority class (JOB_POD_SETTINGS, priorityClassName), and start the job again.',
  DeletionByTaintManager:
    'the node of its pod was lost or was tainted. Start the job again; tolerations in JOB_POD_SETTINGS decide how long pods wait for a node to come back.',
  NodeLost: 'the node of its pod was lost. Start the job again.',
  DeletionByPodGC: 'the node of its pod has gone. Start the job again.',
  EvictionByEvictionAPI: 'its pod was evicted, as when a node is drained. Start the job again.',
  TerminationByKubelet: 'its node ran short of memory or disk, or was shut down. Start the job again.',
  Terminated: 'its node was shut down. Start the job again.',
  Shutdown: 'its node was shut down. Start the job again.',
  DeadlineExceeded: REASON.deadline,
};

function podObservation(pod: Pod, claim: PersistentVolumeClaim | null, isOverdue: boolean): Observation {
  const { status = {}, metadata } = pod;
  const disruption = disruptionOf(pod);
  if (disruption) return ended(disruption);
  if (metadata.deletionTimestamp) return ended(REASON.podDeleted);
  const failure = statusesOf(pod).map(containerFailure).find(Boolean);
  if (failure) return ended(failure);
  if (status.phase === 'Succeeded') return ended(null);
  if (status.phase === 'Failed')
    return ended(`its pod failed (${brief(status.message ?? status.reason)}). Start the job again.`);
  const waits = obstacleOf(pod, claim);
  if (!waits) return { state: 'running' };
  return isOverdue || waits.forGood ? ended(`${waits.what}. ${waits.change}`) : { state: 'running', waits: waits.what };
}

function disruptionOf({ status }: Pod): string | null {
  if (status?.reason === 'Evicted')
    return `its pod was evicted (${brief(status.message)}). Start the job again on a node with more room, or with a smaller job_mem_size.`;
  const target = conditionOf(status?.conditions, 'DisruptionTarget');
  return DISRUPTIONS[target?.reason ?? ''] ?? DISRUPTIONS[status?.reason ?? ''] ?? null;
}

/** All containers of a pod, in the order in which they begin. */
export function statusesOf({ status }: Pod): ContainerStatus[] {
  return [...(status?.initContainerStatuses ?? []), ...(status?.containerStatuses ?? [])];
}

function containerFailure({ name, state }: ContainerStatus): string | null {
  const end = state?.terminated;
  if (!end) return null;
  if (end.reason === 'OOMKilled')
    return `the container ${name} took more memory than it may (five times job_mem_size). Start the job again with a larger job_mem_size, or raise DEFAULT_IMS_JOB_MEM_SIZE.`;
  if (end.exitCode === 0) return null;
  if (['ContainerCannotRun', 'StartError'].includes(end.reason ?? ''))
    return `the container ${name} could not be started (${brief(end.message)}): set JOB_WORKER_IMAGE to the worker image of this version.`;
  return `the container ${name} ended with code ${end.exitCode} before it could say why. Its log tells more; start the job again.`;
}

/** What a pod waits for, and what to change where it waits in vain. */
interface Obstacle {
  what: string;
  change: string;
  /** Waiting does not help. */
  forGood?: boolean;
}

function obstacleOf(pod: Pod, claim: PersistentVolumeClaim | null): Obstacle | null {
  // A pod whose init containers work is pending too.
  if (pod.status?.phase !== 'Pending' || pod.status.initContainerStatuses?.some(({ state }) => state?.running))
    return null;
  const scheduled = pod.status.conditions?.find(({ type }) => type === 'PodScheduled');
  // A claim may stay unbound until its pod has a node, by the choice of its storage class: what the scheduler says comes first then.
  if (claim?.status?.phase !== 'Bound' && (!scheduled || /volume|claim/i.test(scheduled.message ?? '')))
    return claimObstacle(claim, scheduled);
  if (scheduled?.status !== 'True') return schedulingObstacle(scheduled);
  const waiting = statusesOf(pod).find(({ state }) => state?.waiting?.reason && state.waiting.message);
  return waiting ? containerObstacle(waiting) : startObstacle();
}

function claimObstacle(claim: PersistentVolumeClaim | null, scheduled: Condition | undefined): Obstacle {
  return {
    what: `the disk of the job is not there (${claim ? brief(scheduled?.message) : 'its PersistentVolumeClaim was deleted'})`,
    change:
      'Set JOB_STORAGE_CLASS to a storage class that can make volumes of five times build_env_size GiB, or ask for a smaller build_env_size.',
  };
}

function schedulingObstacle(scheduled: Condition | undefined): Obstacle {
  return {
    what: `no node takes the pod of the job (${brief(scheduled?.message)})`,
    change:
      'Ask for a smaller job_mem_size, wait until other jobs have ended, or change the nodes that JOB_POD_SETTINGS selects.',
  };
}

function startObstacle(): Obstacle {
  return {
    what: 'the node is preparing the pod of the job',
    change: 'It did not come to an end: `kubectl describe pod` tells what the node lacks. Start the job again.',
  };
}

function containerObstacle({ name, image, state }: ContainerStatus): Obstacle {
  const { reason, message } = state!.waiting!;
  if (reason === 'InvalidImageName')
    return {
      what: `${JSON.stringify(image)} is no name of an image`,
      change: 'Set JOB_WORKER_IMAGE to the worker image of this version.',
      forGood: true,
    };
  if (['ErrImagePull', 'ImagePullBackOff', 'ErrImageNeverPull', 'RegistryUnavailable'].includes(reason!))
    return {
      what: `the image ${image} cannot be pulled (${brief(message)})`,
      change:
        'Set JOB_WORKER_IMAGE to an image that the nodes can pull, and imagePullSecrets in JOB_POD_SETTINGS where it needs them.',
    };
  return {
    what: `the container ${name} cannot be started (${reason}: ${brief(message)})`,
    change: 'Where a secret is missing, make it in the namespace of jobs, or name another by JOB_S3_SECRET.',
  };
}
