import { type ChildProcess, spawn } from 'node:child_process';
import { createWriteStream } from 'node:fs';
import { Readable } from 'node:stream';
import type { PhaseName } from '../../../protocol/job-spec.js';
import { BoundedLog } from './bounded-log.js';

/** How a worker process ended. */
export interface WorkerEnd {
  phase: PhaseName;
  /** Exit code; null where a signal ended it. */
  code: number | null;
  signal: NodeJS.Signals | null;
}

export interface WorkerCommand {
  /** Compiled entry of the worker program. */
  main: string;
  phase: PhaseName;
  /** The job's `job.json`. */
  spec: string;
  /** All of the worker's environment. */
  environment: Readonly<Record<string, string>>;
  /** File that gets what the phase prints. */
  log: string;
  /** Files into which the process writes its id to join the groups that limit it. */
  groups: readonly string[];
}

/**
 * The holder of a phase: a process in mount and pid namespaces of its own, so that whatever the phase mounts or starts goes when it goes.
 * It dies with the server (`--pdeathsig`), and all in its namespaces dies with it (`--kill-child`), also where the server is killed.
 */
const HOLDER = [
  '--pdeathsig',
  'KILL',
  'unshare',
  '--mount',
  '--propagation',
  'private',
  '--pid',
  '--fork',
  '--kill-child=KILL',
  '--mount-proc',
] as const;

/** Joins the groups, and becomes the command behind `--`. A process that could not join them must not run without limits. */
const JOIN = 'while [ "$1" != -- ]; do echo $$ > "$1" || exit 1; shift; done; shift; exec "$@"';

/** One phase of a job, running. */
export class WorkerProcess {
  readonly phase: PhaseName;
  /** Resolves, never rejects, when the process and all that it started are gone. */
  readonly ended: Promise<WorkerEnd>;
  private readonly child: ChildProcess;

  constructor(command: WorkerCommand) {
    this.phase = command.phase;
    const log = createWriteStream(command.log, { flags: 'a', mode: 0o600 });
    // A log that cannot be written (a full disk) must not end the phase, which will say so itself.
    log.on('error', () => {});
    const worker = [process.execPath, '--enable-source-maps', command.main, command.phase, command.spec];
    this.child = spawn('sh', ['-c', JOIN, 'join', ...command.groups, '--', 'setpriv', ...HOLDER, ...worker], {
      env: command.environment,
      stdio: ['ignore', 'pipe', 'pipe'],
      cwd: '/',
    });
    // Where this process may open no more files, its child has no streams, and says so by the event error.
    const kept = new BoundedLog(log);
    for (const stream of [this.child.stdout, this.child.stderr])
      if (stream instanceof Readable) stream.on('data', (chunk: Buffer) => kept.add(chunk));
    this.ended = new Promise((resolve) => {
      const end = (code: number | null, signal: NodeJS.Signals | null) => {
        kept.end();
        log.end(() => resolve({ phase: this.phase, code, signal }));
      };
      this.child.once('error', (error) => {
        log.write(`${error.message}\n`);
        end(127, null);
      });
      this.child.once('close', end);
    });
  }

  /** Ends the phase at once and waits until nothing of it is left. Safe to repeat. */
  async kill(): Promise<void> {
    this.child.kill('SIGKILL');
    await this.ended;
  }
}
