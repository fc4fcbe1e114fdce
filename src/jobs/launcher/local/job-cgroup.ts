import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { access, mkdir, readdir, rmdir, writeFile } from 'node:fs/promises';
import { totalmem } from 'node:os';
import path from 'node:path';

/** What all processes of a job may take together. */
export interface JobLimits {
  /** Bytes of memory, page cache included. */
  memory: number;
  /** Processes and threads. */
  processes: number;
}

/** Part of the machine's memory that one job may take at most, so that a job that runs away ends before the server does. */
const SHARE_OF_MACHINE = 0.75;
/** As on Kubernetes: a job asks for `job_mem_size` and may take five times that. */
const BURST = 5;
const GIB = 1024 ** 3;
const PROCESSES = 16_384;

/** The limits of a job that asks for this much memory, GiB. */
export function limitsOf(memSizeGib: number): JobLimits {
  return {
    memory: Math.min(BURST * memSizeGib * GIB, Math.floor(totalmem() * SHARE_OF_MACHINE)),
    processes: PROCESSES,
  };
}

/** Where one kind of limit is set: the directory of this process's own group, and the file that takes the limit. */
interface Controller {
  parent: string;
  files: [name: string, limit: keyof JobLimits][];
}

/**
 * Control groups for jobs, below the group of the server. Hosts differ in whether they let a process make groups at all (cgroups(7));
 * where they do not, jobs run without limits.
 */
export class JobCgroups {
  private constructor(
    private readonly controllers: readonly Controller[],
    private readonly prefix: string,
  ) {}

  /**
   * Finds out what this host offers.
   * @param owner tells the groups of one server from those of another in the same group
   */
  static async find(
    owner: string,
    root = '/sys/fs/cgroup',
    self = readFileSync('/proc/self/cgroup', 'utf8'),
  ): Promise<JobCgroups> {
    const prefix = `ims-${createHash('sha256').update(owner).digest('hex').slice(0, 12)}-`;
    const unified = await unifiedController(root, self);
    if (unified) return new JobCgroups([unified], prefix);
    const controllers = await Promise.all(
      LEGACY.map(async ([name, ...files]) => {
        const group = new RegExp(`^\\d+:(?:.*,)?${name}(?:,.*)?:(.*)$`, 'm').exec(self)?.[1];
        if (group === undefined) return null;
        const parent = path.join(root, name, group);
        return (await isWritable(parent)) ? { parent, files } : null;
      }),
    );
    return new JobCgroups(
      controllers.filter((controller) => controller !== null),
      prefix,
    );
  }

  /** Makes the groups of a job. Returns the files into which a process writes its id to join them. */
  async create(jobId: string, limits: JobLimits): Promise<string[]> {
    for (const { directory, files } of this.groupsOf(jobId)) {
      await mkdir(directory, { recursive: true });
      for (const [file, limit] of files) await writeFile(path.join(directory, file), String(limits[limit]));
    }
    return this.groupsOf(jobId).map(({ directory }) => path.join(directory, 'cgroup.procs'));
  }

  /** Removes the groups of a job whose processes are all gone. Missing groups are no error. */
  async remove(jobId: string): Promise<void> {
    for (const { directory } of this.groupsOf(jobId)) await removeGroup(directory);
  }

  /** Removes groups that an earlier server left behind, and in which nothing runs any more. */
  async sweep(): Promise<void> {
    for (const { parent } of this.controllers)
      for (const name of await readdir(parent))
        if (name.startsWith(this.prefix)) await removeGroup(path.join(parent, name));
  }

  private groupsOf(jobId: string) {
    return this.controllers.map(({ parent, files }) => ({ directory: path.join(parent, this.prefix + jobId), files }));
  }
}

/** Controllers of cgroups version 1, each a hierarchy of its own, with the files of their limits. */
const LEGACY: readonly [string, ...[string, keyof JobLimits][]][] = [
  ['memory', ['memory.limit_in_bytes', 'memory']],
  ['pids', ['pids.max', 'processes']],
];

/** cgroups version 2, where they limit memory and processes; they may only where the server's own group hands these on. */
async function unifiedController(root: string, self: string): Promise<Controller | null> {
  const group = /^0::(.*)$/m.exec(self)?.[1];
  const parent = path.join(root, group ?? '');
  if (group === undefined || !(await isThere(path.join(parent, 'cgroup.subtree_control')))) return null;
  try {
    await writeFile(path.join(parent, 'cgroup.subtree_control'), '+memory +pids');
  } catch {
    // A group that holds processes, as that of a plain service does, hands nothing on.
    return null;
  }
  return {
    parent,
    files: [
      ['memory.max', 'memory'],
      ['pids.max', 'processes'],
    ],
  };
}

async function isThere(file: string): Promise<boolean> {
  return access(file).then(
    () => true,
    () => false,
  );
}

async function isWritable(directory: string): Promise<boolean> {
  const probe = path.join(directory, `ims-probe-${process.pid}`);
  return mkdir(probe)
    .then(() => rmdir(probe))
    .then(
      () => true,
      () => false,
    );
}

/** A group is busy for a moment after its last process has ended. */
async function removeGroup(directory: string): Promise<void> {
  for (let tries = 0; tries < 50; tries++) {
    const code = await rmdir(directory).then(
      () => 'ENOENT',
      (error: NodeJS.ErrnoException) => error.code,
    );
    if (code !== 'EBUSY') return;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}
