import { readFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import path from 'node:path';
import type { JobView } from '../../src/quickstart/api.js';
import { command, sleep, System, until } from '../support/system.js';

async function withSystem(
  environment: Record<string, string>,
  work: (system: System, imageId: string, keyId: string) => Promise<void>,
  prefix?: string[],
): Promise<void> {
  const system = await System.start(environment, prefix);
  try {
    await work(system, await system.addImage(), await system.addKey());
  } finally {
    await system.stop();
  }
}

/** Runs a script with the server in a mount namespace of its own. */
const inMounts = (script: string) => [
  'unshare',
  '--mount',
  '--propagation',
  'private',
  'bash',
  '-c',
  `set -e; ${script}; exec "$@"`,
  'server',
];

async function complete(system: System, job: JobView): Promise<JobView> {
  await system.ssh(await system.waitFor(job.id, 'waiting_on_user'), 'touch /mnt/image/complete');
  return system.waitFor(job.id, 'success');
}

it('runs several jobs at once, as many as the setting says', async () => {
  await withSystem({ JOB_MAX_RUNNING: '3' }, async (system, imageId, keyId) => {
    const jobs = await Promise.all(Array.from({ length: 4 }, () => system.startJob(imageId, keyId)));
    await until('three wait on the user', async () => {
      const all = await system.api.jobs();
      return all.filter(({ status }) => status === 'waiting_on_user').length === 3;
    });
    const all = await system.api.jobs();
    const waiting = all.find(({ status }) => status === 'creating')!;
    expect(waiting.status_reason).toContain('JOB_MAX_RUNNING lets 3 run at once');
    const others = all.filter(({ id }) => id !== waiting.id);
    await Promise.all(others.map((job, index) => system.ssh(job, `echo ${index} > /mnt/image/image-root/opt/number`)));
    const ended = await Promise.all(others.map((job) => complete(system, job)));
    for (const [index, { resultant_image_id }] of ended.entries()) {
      const rootfs = await system.rootfsOf(resultant_image_id!);
      expect((await system.withMounted([rootfs], 'cat "$A/opt/number"')).stdout).toBe(`${index}\n`);
    }
    await complete(system, waiting);
    for (const { id } of jobs) await system.api.request('DELETE', `/jobs/${id}`);
    for (const { id } of jobs) await system.expectNoTraces(id);
  });
}, 120_000);

it('unpacks the image where it cannot be mounted, and says so', async () => {
  const noLoops =
    'mount -t tmpfs none /mnt; : > /mnt/none; for device in /dev/loop*; do [ -d $device ] || mount --bind /mnt/none $device; done';
  await withSystem(
    {},
    async (system, imageId, keyId) => {
      const job = await system.waitFor((await system.startJob(imageId, keyId)).id, 'waiting_on_user');
      expect(await system.jobLog(job.id)).toContain('the image cannot be mounted here and is unpacked');
      await system.ssh(job, 'cd /mnt/image/image-root && echo new > opt/new && chown 5:6 opt/new && rm etc/hostname');
      const { resultant_image_id } = await complete(system, job);
      const differences = await system.differences(
        await system.rootfsOf(imageId),
        await system.rootfsOf(resultant_image_id!),
      );
      expect(differences.filter((line) => !line.startsWith('.d..t')).toSorted()).toEqual([
        '*deleting   etc/hostname',
        '>f+++++++++ etc/cray/ca/certificate_authority.crt',
        '>f+++++++++ opt/new',
        'cd+++++++++ etc/cray/',
        'cd+++++++++ etc/cray/ca/',
      ]);
      await system.api.request('DELETE', `/jobs/${job.id}`);
      await system.expectNoTraces(job.id);
    },
    inMounts(noLoops),
  );
}, 120_000);

it('downloads the image where the store is elsewhere', async () => {
  const store = await System.start();
  try {
    const environment = { S3_ENDPOINT: store.storeUrl };
    await withSystem(environment, async (system, imageId, keyId) => {
      const job = await system.waitFor((await system.startJob(imageId, keyId)).id, 'waiting_on_user');
      expect(await system.jobLog(job.id)).toMatch(/downloads bytes=\d+/);
      await complete(system, job);
    });
  } finally {
    await store.stop();
  }
}, 120_000);

it('says when no port is free', async () => {
  const taken = createServer().listen(0, '127.0.0.1');
  await new Promise((resolve) => taken.once('listening', resolve));
  const { port } = taken.address() as { port: number };
  await withSystem({ JOB_SSH_PORTS: `${port}-${port}` }, async (system, imageId, keyId) => {
    await expect(system.startJob(imageId, keyId)).rejects.toThrow(/JOB_SSH_PORTS/);
  });
  taken.close();
}, 60_000);

it('moves a shell to another port where its own was taken meanwhile, and says which', async () => {
  await withSystem({ JOB_MAX_RUNNING: '1' }, async (system, imageId, keyId) => {
    const first = await system.waitFor((await system.startJob(imageId, keyId)).id, 'waiting_on_user');
    const second = await system.startJob(imageId, keyId);
    const { port } = second.ssh_containers![0]!.connection_info.customer_access;
    const intruder = createServer().listen(port, '127.0.0.1');
    await complete(system, first);
    const job = await system.waitFor(second.id, 'waiting_on_user');
    expect(job.ssh_containers![0]!.connection_info.customer_access.port).not.toBe(port);
    intruder.close();
    await complete(system, job);
  });
}, 60_000);

it('ends a shell that nobody ends, at a time that can be moved', async () => {
  await withSystem({ JOB_SHELL_SECONDS: '8' }, async (system, imageId, keyId) => {
    const { id } = await system.startJob(imageId, keyId);
    const { shell_deadline } = await system.waitFor(id, 'waiting_on_user');
    expect(Math.abs(Date.parse(shell_deadline!) - Date.now() - 8000)).toBeLessThan(3000);
    const later = new Date(Date.now() + 3600_000);
    const moved = await system.api.request<JobView>('PATCH', `/jobs/${id}`, { shell_deadline: later });
    expect(Date.parse(moved.shell_deadline!)).toBe(later.getTime());
    await sleep(10_000);
    expect((await system.api.job(id)).status).toBe('waiting_on_user');
    await system.api.request('PATCH', `/jobs/${id}`, { shell_deadline: new Date(Date.now() + 500) });
    expect((await system.waitFor(id, 'error', 30)).status_reason).toContain('before the deadline of the shell');
    await expect(
      system.api.request('PATCH', `/jobs/${id}`, { shell_deadline: '2001-01-01T00:00:00Z' }),
    ).rejects.toThrow(/shell_deadline: Must be a time to come/);
  });
}, 60_000);

it('ends a shell that nobody uses', async () => {
  await withSystem({ JOB_SHELL_IDLE_SECONDS: '4' }, async (system, imageId, keyId) => {
    const { id } = await system.startJob(imageId, keyId);
    const job = await system.waitFor(id, 'waiting_on_user');
    expect(job.shell_idle_seconds).toBe(4);
    await system.ssh(job, 'sleep 7');
    expect((await system.api.job(id)).status).toBe('waiting_on_user');
    expect((await system.waitFor(id, 'error', 20)).status_reason).toContain('nobody was logged in to the shell');
  });
}, 60_000);

it('deletes jobs that were kept long enough', async () => {
  await withSystem({ JOB_RETENTION_SECONDS: '2' }, async (system, imageId, keyId) => {
    const job = await system.startJob(imageId, keyId);
    const { resultant_image_id } = await complete(system, job);
    await until('the job is gone', async () => (await system.api.jobs()).length === 0);
    await system.expectNoTraces(job.id);
    expect(await system.api.request('GET', `/images/${resultant_image_id}`)).toMatchObject({ name: 'result' });
  });
}, 60_000);

it('ends a job that fills the disk, loses nothing else, and goes on when there is space', async () => {
  const mounts = 'mkdir -p "$STATE_DIR"; mount -t tmpfs -o size=160m none "$STATE_DIR"';
  const system = await System.start({ JOB_DISK_RESERVE_MIB: '24' }, inMounts(mounts));
  try {
    const [imageId, keyId] = [await system.addImage(), await system.addKey()];
    const { id } = await system.startJob(imageId, keyId);
    const job = await system.waitFor(id, 'waiting_on_user');
    await system.ssh(job, 'dd if=/dev/urandom of=/mnt/image/image-root/opt/large bs=1M count=200; sleep 5');
    const { status_reason } = await system.waitFor(id, 'error');
    expect(status_reason).toMatch(/are free: free some space|is full: free some space/);
    await complete(system, await system.startJob(imageId, keyId));
  } finally {
    await system.stop();
  }
}, 120_000);

it('limits the memory and the processes of a job where the host offers it', async () => {
  await withSystem({}, async (system, imageId, keyId) => {
    const job = await system.waitFor(
      (await system.startJob(imageId, keyId, { job_mem_size: 1 })).id,
      'waiting_on_user',
    );
    const groups = await groupsWith(job.id);
    if (await offersGroups()) expect(groups.length).toBeGreaterThan(0);
    for (const group of groups) {
      const limit = await readFile(path.join(group, limitFileOf(group)), 'utf8');
      expect(Number(limit)).toBe(group.includes('/pids/') ? 16_384 : 5 * 1024 ** 3);
      expect((await readFile(path.join(group, 'cgroup.procs'), 'utf8')).split('\n').length).toBeGreaterThan(3);
    }
    await system.api.request('DELETE', `/jobs/${job.id}`);
    await until('the groups are gone', async () => (await groupsWith(job.id)).length === 0);
  });
}, 60_000);

function limitFileOf(group: string): string {
  if (group.includes('/pids/')) return 'pids.max';
  return group.includes('/memory/') ? 'memory.limit_in_bytes' : 'memory.max';
}

async function groupsWith(jobId: string): Promise<string[]> {
  const { stdout } = await command('find', ['/sys/fs/cgroup', '-type', 'd', '-name', `*${jobId}`]);
  return stdout.split('\n').filter(Boolean);
}

/** cgroups of version 1 let root make groups anywhere. */
async function offersGroups(): Promise<boolean> {
  return (await command('test', ['-w', '/sys/fs/cgroup/pids/cgroup.procs'])).code === 0;
}

it('says which package is missing, and takes no job', async () => {
  const hide = 'mount --bind /etc/passwd /usr/bin/slirp4netns';
  const system = await System.start({}, inMounts(hide));
  try {
    const ready = await fetch(`${system.url}/healthz/ready`);
    expect(ready.status).toBe(503);
    expect(((await ready.json()) as { detail: string }).detail).toContain(
      'apt-get install -y --no-install-recommends slirp4netns',
    );
    const { id } = await system.startJob(await system.addImage(), await system.addKey());
    expect((await system.waitFor(id, 'error')).status_reason).toContain('slirp4netns');
    await system.api.request('DELETE', `/jobs/${id}`);
    await system.expectNoTraces(id);
  } finally {
    await system.stop();
  }
}, 60_000);

it.each<[string, string[], RegExp]>([
  [
    'which capabilities a container lacks',
    ['setpriv', '--bounding-set', '-sys_ptrace,-net_admin', '--'],
    /give its container the capabilities NET_ADMIN, SYS_PTRACE$/,
  ],
  [
    'that the host refuses what a sandbox is made of',
    inMounts('mount --bind /bin/false /usr/sbin/pivot_root'),
    /this host refuses what the sandboxes of jobs are made of \(.+\): allow user namespaces/,
  ],
])(
  'says %s when it starts, and in its readiness',
  async (_what, prefix, sentence) => {
    const system = await System.start({}, prefix);
    try {
      const ready = await fetch(`${system.url}/healthz/ready`);
      expect(((await ready.json()) as { detail: string }).detail).toMatch(sentence);
      await until('the log says so', async () => /"msg":"no jobs can run: /.test(system.log));
      const line = system.log.split('\n').find((text) => text.includes('no jobs can run'))!;
      expect((JSON.parse(line) as { msg: string }).msg).toMatch(sentence);
    } finally {
      await system.stop();
    }
  },
  60_000,
);
