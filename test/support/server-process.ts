import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import path from 'node:path';
import { DIST } from './child.js';

/** The compiled server, as a process of its own. */
export class ServerProcess {
  log = '';
  url = '';

  private constructor(private readonly child: ChildProcess) {
    for (const stream of [child.stdout!, child.stderr!])
      stream.on('data', (chunk: Buffer) => (this.log += chunk.toString()));
  }

  /** Starts it and waits until it listens; rejects with what it printed where it does not. */
  static async start(environment: Record<string, string>, prefix: readonly string[] = []): Promise<ServerProcess> {
    const main = path.join(DIST, 'src/main.js');
    const env = { PATH: process.env['PATH']!, HOME: process.env['HOME'] ?? '/', ...environment };
    const [program, ...args] = [...prefix, process.execPath, '--no-warnings', main];
    const server = new ServerProcess(spawn(program!, args, { env, stdio: ['ignore', 'pipe', 'pipe'], cwd: '/' }));
    await server.listening();
    return server;
  }

  get pid(): number {
    return this.child.pid!;
  }

  private async listening(): Promise<void> {
    for (;;) {
      const line = /^.*"msg":"listening".*$/m.exec(this.log)?.[0];
      if (line) this.url = (JSON.parse(line) as { url: string }).url;
      if (line) return;
      if (this.isOver) throw new Error(this.log);
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }

  private get isOver(): boolean {
    return this.child.exitCode !== null || this.child.signalCode !== null;
  }

  private async end(signal: NodeJS.Signals): Promise<void> {
    if (this.isOver) return;
    const ended = once(this.child, 'close');
    this.child.kill(signal);
    await ended;
  }

  stop(): Promise<void> {
    return this.end('SIGTERM');
  }

  kill(): Promise<void> {
    return this.end('SIGKILL');
  }
}
