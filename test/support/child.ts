import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import path from 'node:path';

/** The compiled project: `npm test` builds it first, so that children run what production runs. */
export const DIST = path.resolve(import.meta.dirname, '../../dist');

/** A node process that runs a piece of code, and says `ready <json>` on a line of its own. */
export class Child {
  output = '';

  private constructor(readonly process: ChildProcess) {
    for (const stream of [process.stdout!, process.stderr!])
      stream.on('data', (chunk: Buffer) => (this.output += chunk.toString()));
  }

  /** Starts a node process with this ES module text; `prefix` is a command that runs it, as `setpriv …`. */
  static start(
    code: string,
    { prefix = [], env = {} }: { prefix?: string[]; env?: Record<string, string> } = {},
  ): Child {
    const [command, ...args] = [...prefix, process.execPath, '--input-type=module', '-e', code];
    return new Child(
      spawn(command!, args, { env: { PATH: process.env['PATH'], ...env }, stdio: ['ignore', 'pipe', 'pipe'] }),
    );
  }

  /** What the child says when it is ready. Rejects where it ends before. */
  async ready<T>(): Promise<T> {
    for (;;) {
      const line = /^ready (.*)$/m.exec(this.output);
      if (line) return JSON.parse(line[1]!) as T;
      if (this.process.exitCode !== null || this.process.signalCode) throw new Error(`the child ended: ${this.output}`);
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
  }

  async kill(signal: NodeJS.Signals = 'SIGKILL'): Promise<void> {
    if (this.process.exitCode !== null || this.process.signalCode) return;
    const ended = once(this.process, 'exit');
    this.process.kill(signal);
    await ended;
  }
}
