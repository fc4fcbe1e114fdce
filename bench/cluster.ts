import { randomFillSync } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import path from 'node:path';
import { parseArgs } from 'node:util';
import type { JobView } from '../src/quickstart/api.js';
import { Cluster, waitForAddress } from '../test/support/cluster.js';
import { type System, until } from '../test/support/system.js';

/*
 * What a customize job on a cluster costs, stage by stage, so that the part of Kubernetes and ours stand apart:
 * `KUBECONFIG=… npm run bench:cluster -- [--mib 300] [--jobs 10] [--dkms]`, after `npm run test:cluster` has built the images and taken them to the
 * cluster. Times are those of the server's log and of the logs of the containers; node and server share a clock on the test cluster.
 */

const { values: options } = parseArgs({
  options: {
    mib: { type: 'string', default: '300' },
    jobs: { type: 'string', default: '10' },
    dkms: { type: 'boolean', default: false },
  },
});

const MIB = 1024 * 1024;
const print = (line: string) => process.stdout.write(`${line}\n`);

/** A part of the way of a job; `whose` is who is at work. */
interface Stage {
  name: string;
  whose: 'ours' | 'Kubernetes';
  seconds: number;
}

/** Milliseconds of the first line of a text that matches; the line begins with its time, or has it as a member. */
function timeOf(text: string, pattern: RegExp): number {
  const line = text.split('\n').find((candidate) => pattern.test(candidate));
  const time = line && /\d{4}-\d\d-\d\dT[\d:.]+Z/.exec(line)?.[0];
  if (!time) throw new Error(`no line matches ${String(pattern)} in:\n${text}`);
  return Date.parse(time);
}

/** Stages between points in time, each named by what happens before its point. */
function stagesOf(begin: number, points: readonly [name: string, whose: Stage['whose'], end: number][]): Stage[] {
  return points.map(([name, whose, end], index) => ({
    name,
    whose,
    seconds: (end - (points[index - 1]?.[2] ?? begin)) / 1000,
  }));
}

function printStages(title: string, stages: readonly Stage[]): void {
  const sum = (whose?: Stage['whose']) =>
    stages.reduce((total, stage) => total + (whose && stage.whose !== whose ? 0 : stage.seconds), 0).toFixed(2);
  print(`\n${title}: ${sum()} s, of which ours ${sum('ours')} s, of Kubernetes ${sum('Kubernetes')} s`);
  for (const { name, whose, seconds } of stages)
    print(`  ${seconds.toFixed(2).padStart(7)} s  ${whose.padEnd(10)}  ${name}`);
}

/** The log of a container with this in it. A node tells of what its containers do about once in a second, and until then there is no log. */
async function logsOf(system: System, id: string, container: string, awaited: RegExp): Promise<string> {
  let log = '';
  await until(`${container} has printed ${String(awaited)}`, async () => {
    log = await (await fetch(`${system.url}/v3/jobs/${id}/logs?container=${container}`)).text();
    return awaited.test(log);
  });
  return log;
}

/** Starts a job and waits until its shell lets somebody in. */
async function open(system: System, imageId: string, keyId: string): Promise<JobView> {
  const { id } = await system.startJob(imageId, keyId, { require_dkms: options.dkms });
  await system.waitFor(id, 'waiting_on_user', 300);
  return waitForAddress(system, id);
}

async function complete(system: System, job: JobView): Promise<void> {
  await system.ssh(job, 'touch /mnt/image/complete');
  await system.waitFor(job.id, 'success', 300);
}

/** One job from its request to the last trace of it. */
async function measureOne(cluster: Cluster, system: System, imageId: string, keyId: string, title: string) {
  const asked = Date.now();
  const job = await open(system, imageId, keyId);
  const entered = Date.now();
  const prepare = await logsOf(system, job.id, 'prepare', /done/);
  const shell = await logsOf(system, job.id, 'sshd', /waits for the user/);
  const launched = timeOf(system.log, new RegExp(`${job.id}.*"launched"|"launched".*${job.id}`));
  printStages(
    `${title}: POST to the first command by ssh`,
    stagesOf(asked, [
      ['the record is written, the objects are made', 'ours', launched],
      ['node, disk, and first container', 'Kubernetes', timeOf(prepare, /begins/)],
      ['the source is fetched', 'ours', timeOf(prepare, /done/)],
      ['next containers', 'Kubernetes', timeOf(shell, /begins/)],
      ['the image root is readied, sshd answers', 'ours', timeOf(shell, /waits for the user/)],
      ['the client sees it, and ssh lets it in', 'ours', entered],
    ]),
  );
  const touched = Date.now();
  await complete(system, job);
  const succeeded = Date.now();
  const sidecar = await logsOf(system, job.id, 'buildenv-sidecar', /registered/);
  const closed = await logsOf(system, job.id, 'sshd', /the shell is closed/);
  printStages(
    `${title}: complete to success`,
    stagesOf(touched, [
      ['the shell is closed', 'ours', timeOf(closed, /the shell is closed/)],
      ['the image is packed, uploaded and registered', 'ours', timeOf(sidecar, /registered/)],
      ['the client sees it', 'ours', succeeded],
    ]),
  );
  const deleted = Date.now();
  await system.api.request('DELETE', `/jobs/${job.id}`);
  await until(
    'its Job is removed',
    async () => !(await cluster.objectsOf(job.id)).some((name) => name.startsWith('job')),
  );
  const removed = Date.now();
  await until('nothing is left', async () => (await cluster.objectsOf(job.id)).length === 0, 60);
  printStages(
    `${title}: DELETE to the last trace`,
    stagesOf(deleted, [
      ['the cluster is asked to remove the Job', 'ours', removed],
      ['its other objects go', 'Kubernetes', Date.now()],
    ]),
  );
}

/** Many jobs at once: how long the last one takes. */
async function measureMany(cluster: Cluster, system: System, imageId: string, keyId: string, count: number) {
  const begun = Date.now();
  const since = () => `${((Date.now() - begun) / 1000).toFixed(1)} s`;
  const jobs = await Promise.all(Array.from({ length: count }, () => open(system, imageId, keyId)));
  print(`\n${count} jobs at once: all shells are open after ${since()}`);
  await Promise.all(jobs.map((job) => complete(system, job)));
  print(`  all have succeeded after ${since()}`);
  await Promise.all(jobs.map(({ id }) => cluster.deleteJob(system, id)));
  print(`  nothing is left after ${since()}`);
}

/** Adds so many MiB that do not compress. */
const withLoad = (mib: number) => async (root: string) => {
  for (let index = 0; index < mib; index += 10)
    await writeFile(
      path.join(root, `opt/load-${index}`),
      randomFillSync(Buffer.alloc(Math.min(10, mib - index) * MIB)),
    );
};

if (!process.env['KUBECONFIG']) throw new Error('set KUBECONFIG to the cluster that is to be measured');
const cluster = await Cluster.open();
try {
  const system = await cluster.startSystem();
  const keyId = await system.addKey();
  const tiny = await system.addImage();
  // The first job warms what is only needed once: caches of the node, connections.
  await cluster.deleteJob(system, (await open(system, tiny, keyId)).id);
  await measureOne(cluster, system, tiny, keyId, 'image of 1 MiB');
  const mib = Number(options.mib);
  const large = await system.addImage({ prepare: withLoad(mib) });
  await measureOne(cluster, system, large, keyId, `image of ${mib} MiB`);
  await measureMany(cluster, system, tiny, keyId, Number(options.jobs));
} finally {
  await cluster.close();
}
