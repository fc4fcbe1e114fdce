import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { JobView } from '../../src/quickstart/api.js';
import { Cluster, kubectl, waitForAddress } from '../support/cluster.js';
import { System, until } from '../support/system.js';

/** What goes wrong on a cluster: every job ends within a minute in the right state, with a reason that says what to change. */

/** Where the test cluster keeps the ids of its processes. */
const STATE = process.env['CLUSTER_STATE'] ?? '/var/lib/ims-test-cluster';

/** Id of a process of the test cluster. */
async function pidOf(name: 'kube-apiserver' | 'kubelet'): Promise<number> {
  return Number(await readFile(path.join(STATE, 'run', `${name}.pid`), 'utf8'));
}

/** Seconds from a fault to the end of the job. */
const IN_TIME = 60;

let cluster: Cluster;
let system: System;
let keyId: string;
let imageId: string;

beforeAll(async () => {
  cluster = await Cluster.open();
  system = await cluster.startSystem();
  keyId = await system.addKey();
  imageId = await system.addImage();
}, 120_000);
afterAll(() => cluster?.close(), 60_000);

async function openShell(on = system): Promise<JobView> {
  const { id } = await on.startJob(imageId, keyId);
  await on.waitFor(id, 'waiting_on_user', 120);
  return on.api.job(id);
}

/** Waits for the end that a fault has to have; the job leaves nothing. */
async function expectError(id: string, reason: RegExp, on = system): Promise<void> {
  let job: JobView;
  await until('the job ends', async () => (job = await on.api.job(id)).status === 'error', IN_TIME);
  expect(job!.status_reason).toMatch(reason);
  await cluster.deleteJob(on, id);
}

describe('a shell is open, and', () => {
  it('its pod is deleted', async () => {
    const { id } = await openShell();
    await cluster.kubectl('delete', await cluster.podOf(id), '--wait=false');
    await expectError(id, /pod was deleted.*[Ss]tart the job again/);
  }, 180_000);

  it('its pod is evicted, as when its node is drained', async () => {
    const { id } = await openShell();
    await cluster.evict(id);
    await expectError(id, /pod was evicted, as when a node is drained/);
  }, 180_000);

  it('its pod runs for longer than the cluster lets it', async () => {
    const { id } = await openShell();
    const limit = JSON.stringify({ spec: { activeDeadlineSeconds: 1 } });
    await cluster.kubectl('patch', await cluster.podOf(id), '-p', limit);
    await expectError(id, /longer than the cluster lets it \(activeDeadlineSeconds\)/);
  }, 180_000);

  it('its node is lost: its pod goes only when that is back', async () => {
    const { id } = await openShell();
    const node = await kubectl('get', 'nodes', '-o', 'jsonpath={.items[0].metadata.name}');
    const kubelet = await pidOf('kubelet');
    // As a cluster of several nodes does with one that is silent; with its only one it waits.
    const taint = 'ims.test/lost=:NoExecute';
    process.kill(kubelet, 'SIGSTOP');
    try {
      await kubectl('taint', 'nodes', node, taint);
      await until('the job ends', async () => (await system.api.job(id)).status === 'error', IN_TIME);
      expect((await system.api.job(id)).status_reason).toMatch(/node of its pod was lost/);
      await system.api.request('DELETE', `/jobs/${id}`);
      // Other jobs do not wait for that.
      await sleep(2000);
      expect(await cluster.objectsOf(id)).toContain(await cluster.podOf(id));
    } finally {
      process.kill(kubelet, 'SIGCONT');
      await kubectl('taint', 'nodes', node, `${taint}-`);
    }
    await until('nothing is left of it', async () => (await cluster.objectsOf(id)).length === 0, IN_TIME);
  }, 240_000);

  it('its Job is deleted', async () => {
    const { id } = await openShell();
    await cluster.kubectl('delete', `job/cray-ims-${id}-customize`, '--wait=false');
    await expectError(id, /was deleted.*[Ss]tart the job again/);
  }, 180_000);

  it('its sshd is killed', async () => {
    const { id } = await openShell();
    await cluster.exec(id, 'sshd', 'pkill', '-9', '-x', 'sshd');
    await expectError(id, /sshd of the shell was ended/);
  }, 180_000);

  it('its worker is killed', async () => {
    const { id } = await openShell();
    await cluster.exec(id, 'sshd', 'pkill', '-9', '-x', 'node').catch(() => {});
    await expectError(id, /container sshd ended with code 137/);
  }, 180_000);

  it('its sidecar takes too much memory', async () => {
    const { id } = await openShell();
    // The kernel ends the largest process first: so that it is the worker, many that are smaller fill the memory together.
    const fill =
      'for p in $(pgrep -x node); do echo 1000 > /proc/$p/oom_score_adj; done; for i in $(seq 120); do python3 -c "import time; b = bytes(1) * (50 << 20); time.sleep(60)" & done; wait';
    await cluster.exec(id, 'buildenv-sidecar', 'bash', '-c', fill).catch(() => {});
    await expectError(id, /buildenv-sidecar took more memory than it may.*job_mem_size/);
  }, 180_000);
});

describe('what a pod needs is not there', () => {
  it.each([
    ['a disk', { JOB_STORAGE_CLASS: 'no-such-class' }, {}, /disk of the job is not there.*JOB_STORAGE_CLASS/],
    [
      'the container image',
      { JOB_WORKER_IMAGE: 'localhost/no-such-image:1', JOB_IMAGE_PULL_POLICY: 'IfNotPresent' },
      {},
      /image localhost\/no-such-image:1 cannot be pulled.*JOB_WORKER_IMAGE/,
    ],
    ['a node', {}, { job_mem_size: 100_000 }, /no node takes the pod.*job_mem_size/],
    ['its service account', { JOB_MOUNT_SERVICE_ACCOUNT: 'nobody' }, { require_dkms: true }, /nobody.*not found/],
    [
      'its runtime class',
      { JOB_KATA_RUNTIME: 'no-such-runtime' },
      { require_dkms: true },
      /no-such-runtime.*not found/,
    ],
    ['the keys of the store', { JOB_S3_SECRET: 'no-such-secret' }, {}, /no-such-secret.*JOB_S3_SECRET/],
  ])(
    '%s',
    async (_what, environment, request, reason) => {
      // The server that has the lease is the one that launches.
      await system.stopServer();
      const other = await cluster.startSystem({ JOB_PENDING_SECONDS: '15', ...environment });
      try {
        const { id } = await other.startJob(imageId, keyId, request);
        await expectError(id, reason, other);
      } finally {
        await other.stopServer();
        await system.startServer();
      }
    },
    180_000,
  );
});

describe('the API server of the cluster', () => {
  it('hangs for a minute: what is asked for meanwhile is done later, and what runs goes on', async () => {
    const running = await openShell();
    const pid = await pidOf('kube-apiserver');
    process.kill(pid, 'SIGSTOP');
    let asked: JobView;
    try {
      asked = await system.startJob(imageId, keyId);
      await sleep(60_000);
      expect((await system.api.job(asked.id)).status).toBe('creating');
      expect((await system.api.job(running.id)).status).toBe('waiting_on_user');
    } finally {
      process.kill(pid, 'SIGCONT');
    }
    await system.waitFor(asked.id, 'waiting_on_user', IN_TIME);
    for (const { id } of [running, asked]) {
      await system.ssh(await waitForAddress(system, id), 'touch /mnt/image/complete');
      await system.waitFor(id, 'success', IN_TIME);
      await cluster.deleteJob(system, id);
    }
  }, 300_000);
});

it('removes what no record owns, after a time, and not before', async () => {
  const { id } = await openShell();
  await system.stopServer();
  const parts = await cluster.objectsOf(id);
  // As after an old database was restored by mistake: this one knows nothing of the job.
  const other = await Cluster.open();
  try {
    const stranger = await other.startSystem({
      DEFAULT_IMS_JOB_NAMESPACE: cluster.namespace,
      // Jobs of another service would be left alone.
      JOB_SERVER_URL: system.url,
      JOB_UNOWNED_SECONDS: '8',
    });
    await sleep(5000);
    expect(await cluster.objectsOf(id)).toEqual(parts);
    await until('nothing is left of the job', async () => (await cluster.objectsOf(id)).length === 0, IN_TIME);
    await stranger.stopServer();
  } finally {
    await other.close();
    await system.startServer();
  }
  await expectError(id, /was deleted.*[Ss]tart the job again/);
}, 240_000);

describe('servers', () => {
  it('are killed again and again, and no job is lost', async () => {
    const ids: string[] = [];
    for (let kill = 0; kill < 5; kill++) {
      ids.push((await system.startJob(imageId, keyId)).id);
      await sleep(Math.random() * 1500);
      await system.killServer();
      await system.startServer();
    }
    for (const id of ids) await system.waitFor(id, 'waiting_on_user', IN_TIME);
    for (const id of ids) await system.ssh(await waitForAddress(system, id), 'touch /mnt/image/complete');
    await sleep(Math.random() * 1000);
    await system.killServer();
    await system.startServer();
    for (const id of ids) await system.waitFor(id, 'success', IN_TIME);
    for (const id of ids) await cluster.deleteJob(system, id);
    expect(await cluster.objectsOf()).toEqual([]);
  }, 300_000);

  it('are two, and one goes on when the one that works on the jobs dies', async () => {
    const other = await cluster.startSystem();
    const ids = [(await system.startJob(imageId, keyId)).id, (await other.startJob(imageId, keyId)).id];
    for (const id of ids) await other.waitFor(id, 'waiting_on_user', IN_TIME);
    await system.killServer();
    const { id: late } = await other.startJob(imageId, keyId);
    await other.waitFor(late, 'waiting_on_user', IN_TIME);
    expect((await cluster.objectsOf()).filter((name) => name.startsWith('job'))).toHaveLength(3);
    for (const id of [...ids, late]) await cluster.deleteJob(other, id);
    await other.stopServer();
    await system.startServer();
  }, 300_000);
});
