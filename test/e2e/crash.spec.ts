import { execFileSync } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { randomBytes } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import path from 'node:path';
import type { JobStatus } from '../../src/protocol/job-status.js';
import { System, until } from '../support/system.js';

/** A rootfs that takes a while to fetch, and to pack: 24 MB that cannot be compressed. */
const prepare = (root: string) => writeFile(path.join(root, 'opt/large'), randomBytes(24 << 20));

/** Pids of the worker of a phase: node itself, below its holder. */
function workersOf(jobId: string, phase: string): number[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .filter((pid) => {
      const words = commandOf(pid).split('\0');
      return words[0] === process.execPath && words.includes(phase) && words.some((word) => word.includes(jobId));
    })
    .map(Number);
}

function commandOf(pid: string): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8');
  } catch {
    return '';
  }
}

/** Where a job is hit: the status in which it is, and the phase that is killed. */
const PLACES: { when: JobStatus; phase: string }[] = [
  { when: 'creating', phase: 'fetch-image' },
  { when: 'fetching_image', phase: 'fetch-image' },
  { when: 'waiting_on_user', phase: 'shell' },
  { when: 'waiting_on_user', phase: 'finish' },
  { when: 'packaging_artifacts', phase: 'finish' },
];

let system: System;
let imageId: string;
let keyId: string;

beforeAll(async () => {
  system = await System.start({ JOB_SQUASHFS_GZIP_LEVEL: '9' });
  imageId = await system.addImage({ prepare });
  keyId = await system.addKey();
}, 60_000);
afterAll(() => system.stop());

/** A job that has come as far as this. */
async function jobIn(status: JobStatus): Promise<string> {
  const { id } = await system.startJob(imageId, keyId);
  if (status === 'creating') return id;
  if (status !== 'packaging_artifacts') {
    await system.waitFor(id, status);
    return id;
  }
  await system.ssh(await system.waitFor(id, 'waiting_on_user'), 'touch /mnt/image/complete');
  await system.waitFor(id, status);
  return id;
}

/** What a job that was hit must leave: its end with a reason, no image, and after it is deleted nothing at all. */
async function expectCleanEnd(id: string, artifacts: string[], reason: RegExp): Promise<void> {
  const job = await system.waitFor(id, 'error');
  expect(job.status_reason).toMatch(reason);
  await until('the store is as it was', async () => String(await system.artifacts()) === String(artifacts));
  await until('no image is half made', async () => {
    const images = await system.api.request<{ link: unknown }[]>('GET', '/images');
    return images.every(({ link }) => link);
  });
  expect(uploadsOf(system)).toBe('0\n');
  await system.api.request('DELETE', `/jobs/${id}`);
  await system.expectNoTraces(id);
}

/** How many uploads in parts were begun and never ended, by a client that is not ours. */
function uploadsOf({ storeUrl }: System): string {
  return execFileSync('python3', ['-c', COUNT_UPLOADS, storeUrl]).toString();
}

const COUNT_UPLOADS = `
import boto3, sys
client = boto3.client('s3', endpoint_url=sys.argv[1], aws_access_key_id='test-access', aws_secret_access_key='test-secret', region_name='us-east-1')
print(len(client.list_multipart_uploads(Bucket='boot-images').get('Uploads', [])))
`;

async function expectNewJobWorks(): Promise<void> {
  const id = await jobIn('packaging_artifacts');
  await system.waitFor(id, 'success');
  await system.api.request('DELETE', `/jobs/${id}`);
  await system.expectNoTraces(id);
}

describe.each(PLACES)('a kill in $when', ({ when, phase }) => {
  it(`of the worker of ${phase} ends the job with a reason`, async () => {
    const artifacts = await system.artifacts();
    const id = await jobIn(when);
    // Fetching from a store on the same disk is over in a moment: the phase may be gone when it is to be hit.
    let hit = false;
    await until('the worker is hit', async () => {
      for (const pid of workersOf(id, phase)) hit = kill(pid) || hit;
      return hit || (await system.api.job(id)).status === 'waiting_on_user';
    });
    if (hit) await expectCleanEnd(id, artifacts, /the phase [a-z-]+ ended before it could say why: it was killed/);
    else await system.api.request('DELETE', `/jobs/${id}`);
  }, 60_000);

  it('of the server ends the job with a reason after the next start', async () => {
    const artifacts = await system.artifacts();
    const id = await jobIn(when);
    await system.killServer();
    // All that the server ran is gone at once, before anybody starts it again: only the directory is left.
    await until('nothing runs', async () => {
      const traces = await system.tracesOf(id);
      return traces.every((trace) => trace === 'its directory');
    });
    await system.startServer();
    const job = await system.api.job(id);
    if (when === 'creating' && job.status !== 'error') {
      // It was not launched yet: nothing is lost, it runs now.
      await system.waitFor(id, 'waiting_on_user');
      await system.api.request('DELETE', `/jobs/${id}`);
      return system.expectNoTraces(id);
    }
    await expectCleanEnd(id, artifacts, /the server was stopped while this job ran/);
  }, 60_000);
});

function kill(pid: number): boolean {
  try {
    process.kill(pid, 'SIGKILL');
    return true;
  } catch {
    return false;
  }
}

it('a new job works after all of that', expectNewJobWorks, 60_000);

it('a stopped server ends its jobs, and says so', async () => {
  const id = await jobIn('waiting_on_user');
  await system.stopServer();
  expect(await system.tracesOf(id)).toEqual(['its directory']);
  await system.startServer();
  expect((await system.waitFor(id, 'error')).status_reason).toContain('the server was stopped while this job ran');
  await system.api.request('DELETE', `/jobs/${id}`);
  await system.expectNoTraces(id);
}, 60_000);

it.each<JobStatus>(['creating', 'fetching_image', 'waiting_on_user', 'packaging_artifacts'])(
  'a job that is deleted in %s leaves nothing',
  async (status) => {
    const artifacts = await system.artifacts();
    const id = await jobIn(status);
    await system.api.request('DELETE', `/jobs/${id}`);
    await system.expectNoTraces(id);
    await until('the store is as it was', async () => String(await system.artifacts()) === String(artifacts));
    expect(uploadsOf(system)).toBe('0\n');
  },
  60_000,
);

it('a log outlives the job that was ended', async () => {
  const { id } = await system.startJob(imageId, keyId);
  await system.waitFor(id, 'waiting_on_user');
  await system.killServer();
  await system.startServer();
  await system.waitFor(id, 'error');
  expect(await readFile(path.join(system.jobDirectory(id), 'logs/shell.log'), 'utf8')).toContain('waits for the user');
}, 60_000);
