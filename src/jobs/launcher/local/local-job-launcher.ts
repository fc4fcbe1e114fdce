import { execFile } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { mkdir, open, readdir, readFile, rename, rm } from 'node:fs/promises';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import type { ArtifactLocation } from '../../../protocol/artifact-link.js';
import { type JobSpec, type PhaseName, PHASES } from '../../../protocol/job-spec.js';
import { SPEC_FILE } from '../../../protocol/signals.js';
import { CONTAINER_OF_PHASE } from '../container-names.js';
import { type ConnectionInfo, JobLauncher, LaunchRefused, type Observation } from '../job-launcher.js';
import { JobCgroups, limitsOf } from './job-cgroup.js';
import { type PhasePlan, planPhases } from '../phase-plan.js';
import { runsProgramsOf } from './foreign-programs.js';
import { COMMAND_PATH, missingForBuilds, missingRequirements } from './requirements.js';
import { findFreePort } from './ssh-ports.js';
import { type WorkerEnd, WorkerProcess } from './worker-process.js';

const run = promisify(execFile);

/** Milliseconds between two looks at a log that is followed. */
const LOG_INTERVAL = 200;

/** The AWS SDK says at every start that it will drop this version of Node one day; a job's log is no place for that. */
const SDK_ENVIRONMENT = { AWS_SDK_JS_NODE_VERSION_SUPPORT_WARNING_DISABLED: 'true' };

/** Directory of a job's logs, below the job directory: it outlives the rest. */
const LOGS = 'logs';

export interface LocalLauncherOptions {
  /** Directory that holds a directory for each job. Nobody else writes there. */
  directory: string;
  /** Compiled entry of the worker program. */
  workerMain: string;
  /** What the worker needs of its environment, as the address and the keys of the store. */
  workerEnvironment: Readonly<Record<string, string>>;
  maxRunning: number;
  /** Whether workers have programs of images of another architecture run by emulators. */
  emulation: boolean;
  ports: { first: number; last: number };
  listenAddress: string;
  /** What clients are told to connect to. */
  host: string;
  /** The file that holds an artifact, where the store is on this machine. */
  findLocalFile: (location: ArtifactLocation) => Promise<string | null>;
}

/** A job whose phases run under this server. */
class RunningJob {
  private readonly processes = new Set<WorkerProcess>();
  private killed = false;
  /** Set when all phases are gone. */
  end: { reason: string | null } | null = null;

  constructor(
    private readonly plan: PhasePlan,
    private readonly start: (phase: PhaseName) => WorkerProcess,
    onEnd: () => void,
  ) {
    this.done = this.runPhases()
      .then(
        (failure) => (failure ? describeEnd(failure) : null),
        (error: Error) => `a phase could not be started (${error.message}). Start the job again.`,
      )
      .then((reason) => {
        this.end = { reason };
        onEnd();
      });
  }

  readonly done: Promise<void>;

  private async runPhases(): Promise<WorkerEnd | null> {
    for (const row of this.plan) {
      const failure = await this.runRow(row);
      if (failure || this.killed) return failure;
    }
    return null;
  }

  /** Phases of a row depend on each other: the first that fails ends the others. */
  private async runRow(row: readonly PhaseName[]): Promise<WorkerEnd | null> {
    let failure: WorkerEnd | null = null;
    const processes = row.map((phase) => this.start(phase));
    for (const process of processes) this.processes.add(process);
    await Promise.all(
      processes.map(async (process) => {
        const end = await process.ended;
        this.processes.delete(process);
        if (end.code === 0 || failure) return;
        failure = end;
        await Promise.all([...this.processes].map((other) => other.kill()));
      }),
    );
    return failure;
  }

  async kill(): Promise<void> {
    this.killed = true;
    await Promise.all([...this.processes].map((process) => process.kill()));
    await this.done;
  }
}

/**
 * What a job record says of a phase that did not get to report by itself. Whether it was killed is not known: what holds it ends with a
 * code of its own then.
 */
function describeEnd({ phase }: WorkerEnd): string {
  return `the phase ${phase} ended before it could say why: it was killed, as happens when memory runs out, or it crashed. Its log tells more; start the job again.`;
}

/** Writes a file so that it is whole or absent after a crash. */
async function writeDurably(file: string, text: string): Promise<void> {
  const temporary = `${file}.${randomUUID()}`;
  const handle = await open(temporary, 'w', 0o600);
  try {
    await handle.writeFile(text);
    await handle.sync();
  } finally {
    await handle.close();
  }
  await rename(temporary, file);
}

/**
 * Runs jobs as processes of this machine, each in namespaces and a directory of its own. Jobs live as long as the server: what a killed
 * server leaves is a directory, and `observe` says of it that its job was interrupted.
 */
export class LocalJobLauncher extends JobLauncher {
  private readonly jobs = new Map<string, RunningJob>();
  private readonly launches = new Map<string, Promise<void>>();
  private stopped = false;
  /** Ports that are kept for jobs that have not ended. */
  private readonly ports = new Map<string, number>();
  private listener: () => void = () => {};
  private proven = false;
  private readonly cgroups: Promise<JobCgroups>;

  constructor(private readonly options: LocalLauncherOptions) {
    super();
    this.cgroups = JobCgroups.find(options.directory);
  }

  override async address(jobId: string): Promise<ConnectionInfo> {
    const { listenAddress, ports, host } = this.options;
    const port = this.ports.get(jobId) ?? (await findFreePort(listenAddress, ports, new Set(this.ports.values())));
    // Another request may have been given the same port while this one looked.
    if (!this.ports.has(jobId) && [...this.ports.values()].includes(port)) return this.address(jobId);
    this.ports.set(jobId, port);
    const address = { host, port };
    return { customer_access: address, 'cluster.local': address };
  }

  override async launch(spec: JobSpec): Promise<void> {
    if (this.jobs.has(spec.job_id)) return;
    const launch = this.launches.get(spec.job_id) ?? this.begin(spec);
    this.launches.set(spec.job_id, launch);
    await launch.finally(() => this.launches.delete(spec.job_id));
  }

  private async begin(spec: JobSpec): Promise<void> {
    await this.refuseWhatCannotRun(spec);
    if (spec.shell) this.ports.set(spec.job_id, spec.shell.port);
    const directory = this.directoryOf(spec.job_id);
    try {
      await this.prepare(directory, spec);
      const groups = await (await this.cgroups).create(spec.job_id, limitsOf(spec.job_mem_size));
      this.startJob(spec, (phase) => this.startPhase(directory, phase, groups));
    } catch (error) {
      await (await this.cgroups).remove(spec.job_id);
      await removeTree(directory);
      throw error;
    }
  }

  /** Makes the directory of a job, in place of any that an interrupted launch has left. */
  private async prepare(directory: string, spec: JobSpec): Promise<void> {
    await this.clear(directory);
    await mkdir(path.join(directory, LOGS), { recursive: true, mode: 0o711 });
    const file = await this.options.findLocalFile(spec.source.artifact);
    await writeDurably(
      path.join(directory, SPEC_FILE),
      JSON.stringify({ ...spec, source: { ...spec.source, file } }, null, 2),
    );
  }

  private startJob(spec: JobSpec, start: (phase: PhaseName) => WorkerProcess): void {
    if (this.stopped) throw new Error('the server stops');
    this.jobs.set(spec.job_id, new RunningJob(planPhases(spec), start, () => this.listener()));
  }

  private async refuseWhatCannotRun(spec: JobSpec): Promise<void> {
    const missing = [
      ...(await missingRequirements()),
      ...(spec.job_type === 'create' ? await missingForBuilds() : []),
      ...(await this.missingForPrograms(spec)),
    ];
    if (missing.length) throw new LaunchRefused(`this machine cannot run ${spec.job_type} jobs: ${missing.join('; ')}`);
  }

  /** What the job needs to run programs of its image, where it does. With emulation that is for the worker to provide. */
  private async missingForPrograms(spec: JobSpec): Promise<string[]> {
    const { arch, shell } = spec;
    if (this.options.emulation || (await runsProgramsOf(arch))) return [];
    // Without a jail the programs of a shell are the machine's own: files can be changed all the same.
    if (spec.job_type === 'customize' && !shell?.jail) return [];
    return [
      `programs of ${arch} do not run here: use a machine of that architecture, or set JOB_EMULATION=true, which registers qemu-user for it`,
    ];
  }

  private startPhase(directory: string, phase: PhaseName, groups: readonly string[]): WorkerProcess {
    return new WorkerProcess({
      main: this.options.workerMain,
      phase,
      spec: path.join(directory, SPEC_FILE),
      environment: { PATH: COMMAND_PATH, ...SDK_ENVIRONMENT, ...this.options.workerEnvironment },
      log: path.join(directory, LOGS, `${phase}.log`),
      groups,
    });
  }

  override async observe(jobId: string): Promise<Observation> {
    const job = this.jobs.get(jobId);
    if (job) return job.end ? { state: 'ended', reason: job.end.reason } : { state: 'running' };
    const known = (await this.list()).includes(jobId);
    return known
      ? {
          state: 'ended',
          reason: 'the server was stopped while this job ran, and its shell with it. Start the job again.',
        }
      : { state: 'absent' };
  }

  override async *log(
    jobId: string,
    container: string,
    from: number,
    follow: AbortSignal | null,
  ): AsyncGenerator<Buffer> {
    const phase = phaseOf(container);
    if (!phase) return;
    const file = path.join(this.directoryOf(jobId), LOGS, `${phase}.log`);
    for (let offset = from; ; await sleep(LOG_INTERVAL)) {
      // Looked at before the log is: what is printed last must not be missed.
      const goesOn = follow && !follow.aborted && (await this.observe(jobId)).state === 'running';
      for await (const chunk of readFrom(file, offset)) {
        offset += chunk.length;
        yield chunk;
      }
      if (!goesOn) return;
    }
  }

  override async release(jobId: string): Promise<void> {
    await this.kill(jobId);
    this.ports.delete(jobId);
    await this.clear(this.directoryOf(jobId));
  }

  override async remove(jobId: string): Promise<void> {
    await this.kill(jobId);
    this.ports.delete(jobId);
    await removeTree(this.directoryOf(jobId));
    this.jobs.delete(jobId);
  }

  override async list(): Promise<string[]> {
    return readdir(this.options.directory).catch(ignoreMissing([]));
  }

  override async free(): Promise<number> {
    const running = [...this.jobs.values()].filter((job) => !job.end).length;
    return Math.max(0, this.options.maxRunning - running - this.launches.size);
  }

  override async ready(): Promise<void> {
    if (this.proven) return;
    const missing = await missingRequirements();
    if (missing.length) throw new Error(missing.join('; '));
    this.proven = true;
  }

  override watch(listener: () => void): void {
    this.listener = listener;
  }

  /**
   * Ends what an earlier server left running, should the kernel not have done so, and waits until it is gone; frees the disk space of its
   * jobs. Called once, before jobs are launched.
   */
  async sweep(): Promise<void> {
    await mkdir(this.options.directory, { recursive: true, mode: 0o711 });
    await killProcessesOf(this.options.directory);
    await (await this.cgroups).sweep();
    // What cannot be removed now is tried again, and told of, when the job is released.
    for (const jobId of await this.list()) await this.clear(this.directoryOf(jobId)).catch(() => {});
  }

  override async stop(): Promise<void> {
    this.stopped = true;
    await Promise.allSettled(this.launches.values());
    await Promise.all([...this.jobs.values()].map((job) => job.kill()));
  }

  private async kill(jobId: string): Promise<void> {
    await this.launches.get(jobId)?.catch(() => {});
    await this.jobs.get(jobId)?.kill();
    await (await this.cgroups).remove(jobId);
  }

  private directoryOf(jobId: string): string {
    return path.join(this.options.directory, jobId);
  }

  /** Removes all of a job directory but the logs. */
  private async clear(directory: string): Promise<void> {
    const names = await readdir(directory).catch(ignoreMissing([]));
    await Promise.all(names.filter((name) => name !== LOGS).map((name) => removeTree(path.join(directory, name))));
  }
}

/** The content of a file after so many bytes; nothing where there is no such file. */
async function* readFrom(file: string, offset: number): AsyncGenerator<Buffer> {
  const handle = await open(file, 'r').catch(ignoreMissing(null));
  if (!handle) return;
  try {
    yield* handle.createReadStream({ start: offset, autoClose: false }) as AsyncIterable<Buffer>;
  } finally {
    await handle.close();
  }
}

function phaseOf(container: string): PhaseName | null {
  return PHASES.find((phase) => CONTAINER_OF_PHASE[phase] === container) ?? null;
}

function ignoreMissing<T>(fallback: T): (error: NodeJS.ErrnoException) => T {
  return (error) => {
    if (error.code === 'ENOENT') return fallback;
    throw error;
  };
}

/** Removes a tree that may hold anything an image may hold; never what is mounted on it. */
async function removeTree(tree: string): Promise<void> {
  await run('rm', ['-rf', '--one-file-system', '--', tree], { env: { PATH: COMMAND_PATH } });
  // rm reports success where a file system of its own was left out; a second look tells.
  await rm(tree, { recursive: false, force: true });
}

/** Milliseconds in which a killed process has to be gone. One in the middle of writing to a slow disk takes a while. */
const DEATH = 10_000;

/** @throws Error where a process outlives it */
async function killProcessesOf(directory: string): Promise<void> {
  for (const deadline = Date.now() + DEATH; ; await sleep(20)) {
    const pids = await processesOf(directory);
    if (!pids.length) return;
    if (Date.now() > deadline)
      throw new Error(`processes of an earlier server cannot be ended: ${pids.join(', ')}. Restart the machine.`);
    for (const pid of pids) killIfThere(pid);
  }
}

/** One that was killed may take others with it, so that these are gone when it is their turn. */
function killIfThere(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
  }
}

/** Ids of worker processes whose job lies in this directory. */
async function processesOf(directory: string): Promise<number[]> {
  const pids = (await readdir('/proc')).filter((name) => /^\d+$/.test(name) && Number(name) !== process.pid);
  const commands = await Promise.all(pids.map((pid) => readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '')));
  const isWorker = (command: string) =>
    command.split('\0').some((word) => word.startsWith(`${directory}/`) && word.endsWith(`/${SPEC_FILE}`));
  return pids.filter((_, index) => isWorker(commands[index]!)).map(Number);
}
