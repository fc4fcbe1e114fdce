import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { PassThrough, type Readable } from 'node:stream';

/** Where commands are looked for: sshd and mount live in sbin, which a poor PATH leaves out. */
export const COMMAND_PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';
/** Most bytes of stdout that `run` returns. */
const STDOUT_LIMIT = 4 * 1024 * 1024;
/** Most bytes of stderr that are kept: the last ones, since they say why a command failed. */
const STDERR_LIMIT = 16 * 1024;
/** Most characters of a line that is handed on; the rest of a longer one comes as further lines. */
const LINE_LIMIT = 16 * 1024;

export interface CommandOptions {
  /** Added to PATH and LC_ALL=C.UTF-8. The worker's own environment, which holds keys, is never passed on. */
  env?: Readonly<Record<string, string>>;
  /** `/` by default. */
  cwd?: string;
  /** Written to its standard input, which is empty otherwise. */
  input?: string | Buffer;
  /** Gets each line that the command prints, without the line break. */
  onLine?: (line: string, stream: 'stdout' | 'stderr') => void;
  /** Kills the command with SIGKILL when it is aborted. */
  signal?: AbortSignal;
}

/** How a command ended. */
export interface CommandEnd {
  /** Null where a signal ended it. */
  code: number | null;
  signal: NodeJS.Signals | null;
  /** The last lines of its standard error. */
  stderr: string;
}

/** A command that runs. */
export interface RunningCommand {
  readonly pid: number;
  /** Resolves, never rejects, when it has ended and its output is closed. */
  readonly ended: Promise<CommandEnd>;
  /** SIGKILL by default. No error where it has ended. */
  kill(signal?: NodeJS.Signals): void;
}

/** The command is not installed, or may not be executed. */
export class CommandMissing extends Error {
  constructor(
    readonly command: string,
    options?: ErrorOptions,
  ) {
    super(`the command ${command} cannot be started: is it installed?`, options);
    this.name = 'CommandMissing';
  }
}

/** The command ended by a signal or with a code other than 0. */
export class CommandFailed extends Error {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  /** The last lines of its standard error. */
  readonly stderr: string;

  constructor(
    readonly command: string,
    end: CommandEnd,
  ) {
    const how = end.signal ? `was ended by ${end.signal}` : `ended with code ${end.code}`;
    const lastLine = end.stderr.trim().split('\n').at(-1);
    super(`${command} ${how}${lastLine ? `: ${lastLine}` : ''}`);
    this.name = 'CommandFailed';
    this.code = end.code;
    this.signal = end.signal;
    this.stderr = end.stderr;
  }
}

/** Runs programs of the machine: a program and its arguments, never the text of a shell. */
export abstract class Commands {
  /**
   * Runs a command to its end.
   * @throws CommandMissing, CommandFailed; CommandFailed too where it prints more than 4 MiB to stdout
   */
  abstract run(
    command: string,
    args: readonly string[],
    options?: CommandOptions,
  ): Promise<{ stdout: string; stderr: string }>;

  /**
   * Starts a command; its output goes to `onLine`, or nowhere.
   * @throws CommandMissing
   */
  abstract start(command: string, args: readonly string[], options?: CommandOptions): Promise<RunningCommand>;

  /**
   * Starts a command whose standard output is a stream of bytes. The stream fails with CommandFailed where the command does; who
   * destroys the stream ends the command.
   * @throws CommandMissing
   */
  abstract read(command: string, args: readonly string[], options?: CommandOptions): Promise<Readable>;
}

/** The last bytes of a stream. */
class Tail {
  private text = '';

  add(chunk: string): void {
    this.text = (this.text + chunk).slice(-STDERR_LIMIT);
  }

  toString(): string {
    return this.text;
  }
}

/** Calls `onLine` with each line of a stream. A line without an end does not grow without end. */
function splitLines(stream: Readable, onLine: (line: string) => void): void {
  let rest = '';
  stream.on('data', (chunk: string) => {
    const lines = (rest + chunk).split(/\r?\n/);
    rest = lines.pop()!;
    for (const line of lines) onLine(line);
    for (; rest.length > LINE_LIMIT; rest = rest.slice(LINE_LIMIT)) onLine(rest.slice(0, LINE_LIMIT));
  });
  stream.on('end', () => {
    if (rest) onLine(rest);
  });
}

/** The commands of this machine. */
export class SystemCommands extends Commands {
  override async run(command: string, args: readonly string[], options: CommandOptions = {}) {
    const child = await this.spawnText(command, args, options);
    let stdout = '';
    child.stdout!.on('data', (chunk: string) => {
      stdout += chunk;
      if (stdout.length > STDOUT_LIMIT) child.kill('SIGKILL');
    });
    const end = await this.watch(child, options);
    if (end.code !== 0) throw new CommandFailed(command, end);
    return { stdout, stderr: end.stderr };
  }

  override async start(command: string, args: readonly string[], options: CommandOptions = {}) {
    const child = await this.spawnText(command, args, options);
    const ended = this.watch(child, options);
    // What nobody listens to must be read all the same, or the command stops when the pipe is full.
    child.stdout!.resume();
    return { pid: child.pid!, ended, kill: (signal: NodeJS.Signals = 'SIGKILL') => void child.kill(signal) };
  }

  override async read(command: string, args: readonly string[], options: CommandOptions = {}): Promise<Readable> {
    const child = await this.spawn(command, args, options);
    child.stderr!.setEncoding('utf8');
    const output = new PassThrough();
    const ended = this.watch(child, options);
    output.once('close', () => void child.kill('SIGKILL'));
    // The end of its output is passed on only when it is known how the command ended: a part must not pass for the whole.
    child.stdout!.pipe(output, { end: false });
    void ended.then((end) => (end.code === 0 ? output.end() : output.destroy(new CommandFailed(command, end))));
    return output;
  }

  private async spawnText(command: string, args: readonly string[], options: CommandOptions): Promise<ChildProcess> {
    const child = await this.spawn(command, args, options);
    child.stdout!.setEncoding('utf8');
    child.stderr!.setEncoding('utf8');
    return child;
  }

  private async spawn(command: string, args: readonly string[], options: CommandOptions): Promise<ChildProcess> {
    const child = spawn(command, args, {
      env: { PATH: COMMAND_PATH, LC_ALL: 'C.UTF-8', ...options.env },
      cwd: options.cwd ?? '/',
      stdio: [options.input === undefined ? 'ignore' : 'pipe', 'pipe', 'pipe'],
      signal: options.signal,
      killSignal: 'SIGKILL',
    });
    await once(child, 'spawn').catch((error: NodeJS.ErrnoException) => {
      throw error.syscall ? new CommandMissing(command, { cause: error }) : error;
    });
    // A command that ends before it has read its input says so by its code; an abort shows in how it ends.
    child.on('error', () => {});
    child.stdin?.on('error', () => {});
    child.stdin?.end(options.input);
    return child;
  }

  private watch(child: ChildProcess, { onLine }: CommandOptions): Promise<CommandEnd> {
    const stderr = new Tail();
    child.stderr!.on('data', (chunk: string) => stderr.add(chunk));
    if (onLine) {
      splitLines(child.stdout!, (line) => onLine(line, 'stdout'));
      splitLines(child.stderr!, (line) => onLine(line, 'stderr'));
    }
    return new Promise((resolve) => {
      child.once('close', (code, signal) => resolve({ code, signal, stderr: stderr.toString() }));
    });
  }
}
