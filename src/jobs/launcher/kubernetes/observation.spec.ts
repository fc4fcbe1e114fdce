import { type JobParts, observationOf } from './observation.js';
import type { BatchJob, Condition, ContainerStatus, Pod } from './objects.js';

const NOW = new Date('2026-11-24T12:00:00Z');
const secondsAgo = (seconds: number) => new Date(NOW.getTime() - seconds * 1000).toISOString();

const JOB = { metadata: { name: 'j', creationTimestamp: secondsAgo(10) }, spec: { suspend: false } } as BatchJob;
const BOUND: JobParts['claim'] = {
  metadata: { name: 'c' },
  spec: { accessModes: [], resources: { requests: { storage: '1Gi' } } },
  status: { phase: 'Bound' },
};

function pod(status: Pod['status'], metadata: Partial<Pod['metadata']> = {}): Pod {
  return { metadata: { name: 'p', creationTimestamp: secondsAgo(10), ...metadata }, status };
}

function observe(parts: Partial<JobParts>, pendingSeconds = 60) {
  return observationOf({ job: JOB, pods: [], claim: BOUND, ...parts }, NOW, pendingSeconds);
}

const isTrue = (type: string, reason = '', message = ''): Condition => ({ type, status: 'True', reason, message });
const container = (name: string, state: ContainerStatus['state']): ContainerStatus => ({
  name,
  image: 'worker:1',
  state,
});
const ended = (exitCode: number, reason: string) =>
  pod({ phase: 'Running', containerStatuses: [container('buildenv-sidecar', { terminated: { exitCode, reason } })] });
const pending = (containerStatuses: ContainerStatus[], scheduled: Condition = isTrue('PodScheduled')) =>
  pod({ phase: 'Pending', conditions: [scheduled], containerStatuses });
const waiting = (reason: string, message = 'why') => [container('sshd', { waiting: { reason, message } })];

describe('observationOf', () => {
  it('knows what was never launched, and what stands still', () => {
    expect(observe({ job: null })).toEqual({ state: 'absent' });
    expect(observe({ job: { ...JOB, spec: { ...JOB.spec, suspend: true } } })).toEqual({
      state: 'running',
      waits: expect.stringContaining('suspended'),
    });
  });

  it('says nothing against a pod that runs, and of one that has done its work that it ended well', () => {
    expect(observe({ pods: [pod({ phase: 'Running' })] })).toEqual({ state: 'running' });
    expect(observe({ pods: [pod({ phase: 'Succeeded' })] })).toEqual({ state: 'ended', reason: null });
    expect(observe({ job: { ...JOB, status: { conditions: [isTrue('Complete')] } } })).toEqual({
      state: 'ended',
      reason: null,
    });
  });

  it.each<[string, Partial<JobParts>, RegExp]>([
    [
      'a deleted Job',
      { job: { ...JOB, metadata: { ...JOB.metadata, deletionTimestamp: secondsAgo(1) } } },
      /Kubernetes Job was deleted/,
    ],
    ['a deleted pod', { pods: [pod({ phase: 'Running' }, { deletionTimestamp: secondsAgo(1) })] }, /pod was deleted/],
    [
      'a pod that is gone',
      { job: { ...JOB, status: { conditions: [isTrue('Failed', 'BackoffLimitExceeded')] } } },
      /pod was deleted/,
    ],
    [
      'a deadline of the cluster',
      { job: { ...JOB, status: { conditions: [isTrue('Failed', 'DeadlineExceeded')] } } },
      /activeDeadlineSeconds/,
    ],
    [
      'no memory',
      { pods: [ended(137, 'OOMKilled')] },
      /buildenv-sidecar took more memory.*job_mem_size.*DEFAULT_IMS_JOB_MEM_SIZE/,
    ],
    ['no memory, though the container ended well', { pods: [ended(0, 'OOMKilled')] }, /more memory/],
    ['an exit code', { pods: [ended(3, 'Error')] }, /buildenv-sidecar ended with code 3/],
    ['a wrong image', { pods: [ended(128, 'StartError')] }, /JOB_WORKER_IMAGE/],
    [
      'an eviction',
      { pods: [pod({ phase: 'Failed', reason: 'Evicted', message: 'The node was low on resource: memory. More.' })] },
      /evicted \(The node was low on resource: memory\)/,
    ],
    [
      'a drained node',
      { pods: [pod({ phase: 'Running', conditions: [isTrue('DisruptionTarget', 'EvictionByEvictionAPI')] })] },
      /drained/,
    ],
    [
      'a lost node',
      { pods: [pod({ phase: 'Running', conditions: [isTrue('DisruptionTarget', 'DeletionByTaintManager')] })] },
      /node of its pod was lost.*JOB_POD_SETTINGS/,
    ],
    [
      'preemption',
      { pods: [pod({ phase: 'Running', conditions: [isTrue('DisruptionTarget', 'PreemptionByScheduler')] })] },
      /priorityClassName/,
    ],
    [
      'a name that is no image',
      { pods: [pending(waiting('InvalidImageName'))] },
      /"worker:1" is no name of an image.*JOB_WORKER_IMAGE/,
    ],
  ])('ends a job at once for %s', (_, parts, reason) => {
    expect(observe(parts)).toEqual({ state: 'ended', reason: expect.stringMatching(reason) });
  });

  it.each<[string, Partial<JobParts>, RegExp, RegExp]>([
    [
      'a node',
      {
        pods: [
          pending([], {
            ...isTrue('PodScheduled', 'Unschedulable', '0/1 nodes are available: 1 Insufficient memory. more'),
            status: 'False',
          }),
        ],
      },
      /no node takes the pod of the job \(0\/1 nodes are available: 1 Insufficient memory\)/,
      /job_mem_size.*JOB_POD_SETTINGS/,
    ],
    [
      'an image',
      { pods: [pending(waiting('ImagePullBackOff'))] },
      /image worker:1 cannot be pulled/,
      /JOB_WORKER_IMAGE/,
    ],
    [
      'a secret',
      { pods: [pending(waiting('CreateContainerConfigError', 'secret "x" not found'))] },
      /secret "x" not found/,
      /JOB_S3_SECRET/,
    ],
    [
      'a disk',
      {
        claim: { ...BOUND!, status: { phase: 'Pending' } },
        pods: [
          pending([], {
            ...isTrue('PodScheduled', 'Unschedulable', 'pod has unbound immediate PersistentVolumeClaims'),
            status: 'False',
          }),
        ],
      },
      /disk of the job is not there/,
      /JOB_STORAGE_CLASS.*build_env_size/,
    ],
    [
      'a node that makes it ready',
      { pods: [pending([container('sshd', { waiting: { reason: 'PodInitializing' } })])] },
      /node is preparing/,
      /kubectl describe pod/,
    ],
    ['a pod', {}, /made no pod/, /quota.*JOB_KATA_RUNTIME/],
    ['a pod', { refusal: 'exceeded quota: ims' }, /makes no pod.*exceeded quota: ims/, /quota/],
  ])('waits for %s, and not for ever', (_, parts, waits, change) => {
    expect(observe(parts)).toEqual({ state: 'running', waits: expect.stringMatching(waits) });
    expect(observe(parts, 5)).toEqual({ state: 'ended', reason: expect.stringMatching(waits) });
    expect(observe(parts, 5)).toEqual({ state: 'ended', reason: expect.stringMatching(change) });
  });

  it('ends a job whose Job stays suspended, however long it ran before', () => {
    const suspendedFor = (seconds: number) => {
      const condition: Condition = { ...isTrue('Suspended'), lastTransitionTime: secondsAgo(seconds) };
      return observe({
        job: {
          metadata: { name: 'j', creationTimestamp: secondsAgo(3600) },
          spec: { ...JOB.spec, suspend: true },
          status: { conditions: [condition] },
        },
      });
    };
    expect(suspendedFor(50)).toEqual({ state: 'running', waits: expect.stringContaining('suspended') });
    expect(suspendedFor(70)).toEqual({
      state: 'ended',
      reason: expect.stringMatching(/suspended.*JOB_PENDING_SECONDS/),
    });
  });

  describe('a pod whose init containers take longer than a pod may wait', () => {
    const HOURS = 3600;
    const building = (inits: ContainerStatus['state'][], sidecar: ContainerStatus['state'], sshd = sidecar) =>
      pod(
        {
          phase: 'Pending',
          conditions: [isTrue('PodScheduled')],
          initContainerStatuses: inits.map((state, index) => container(`init-${index}`, state)),
          containerStatuses: [container('buildenv-sidecar', sidecar), container('sshd', sshd)],
        },
        { creationTimestamp: secondsAgo(2 * HOURS) },
      );
    const endedWell = (seconds: number) => ({
      terminated: { exitCode: 0, reason: 'Completed', finishedAt: secondsAgo(seconds) },
    });
    const PREPARED = { waiting: { reason: 'PodInitializing' } };

    it('runs while one of them does', () => {
      const pods = [building([endedWell(1.5 * HOURS), { running: {} }], PREPARED)];
      expect(observe({ pods })).toEqual({ state: 'running' });
    });

    it('has its time to wait anew when they have ended', () => {
      const { state: pulling } = waiting('ImagePullBackOff')[0]!;
      const waitsSince = (seconds: number) =>
        observe({ pods: [building([endedWell(1.5 * HOURS), endedWell(seconds)], { running: {} }, pulling)] });
      expect(waitsSince(50)).toEqual({ state: 'running', waits: expect.stringContaining('cannot be pulled') });
      expect(waitsSince(70)).toEqual({ state: 'ended', reason: expect.stringContaining('cannot be pulled') });
    });

    it('ends where one of them fails', () => {
      const failed = { terminated: { exitCode: 3, reason: 'Error', finishedAt: secondsAgo(1) } };
      expect(observe({ pods: [building([endedWell(HOURS), failed], PREPARED)] })).toEqual({
        state: 'ended',
        reason: expect.stringContaining('init-1 ended with code 3'),
      });
    });
  });

  it('does not mind that a claim is unbound until its pod has a node', () => {
    const scheduled = {
      ...isTrue('PodScheduled', 'Unschedulable', '0/1 nodes are available: 1 Insufficient memory'),
      status: 'False' as const,
    };
    expect(observe({ claim: { ...BOUND!, status: { phase: 'Pending' } }, pods: [pending([], scheduled)] })).toEqual({
      state: 'running',
      waits: expect.stringContaining('Insufficient memory'),
    });
  });
});
