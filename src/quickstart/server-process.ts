import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import path from 'node:path';
import { createInterface } from 'node:readline';

/** A server of our own, started beside the quickstart as an operator would start it. */
export class ServerProcess {
  private constructor(
    private readonly child: ChildProcess,
    /** Base url of the API. */
    readonly url: string,
    /** Endpoint of the embedded store. */
    readonly store: string,
  ) {}

  /** Starts the server and waits until it listens. `environment` is added to this process's own. */
  static async start(environment: Record<string, string>, onLine: (line: string) => void): Promise<ServerProcess> {
    const main = path.resolve(import.meta.dirname, '../main.js');
    const child = spawn(process.execPath, ['--no-warnings', main], {
      env: { ...process.env, ...environment },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    const tail: string[] = [];
    const listening = new Promise<{ url: string; store: string }>((resolve, reject) => {
      const onText = (line: string) => {
        tail.push(line);
        onLine(line);
        if (tail.length > 20) tail.shift();
        if (line.includes('"msg":"listening"')) resolve(JSON.parse(line) as { url: string; store: string });
      };
      createInterface(child.stdout).on('line', onText);
      createInterface(child.stderr).on('line', onText);
      child.once('close', () => reject(new Error(`the server did not start:\n${tail.join('\n')}`)));
    });
    const { url, store } = await listening;
    return new ServerProcess(child, url, store);
  }

  /** Stops the server and waits until it has ended. */
  async stop(): Promise<void> {
    if (this.child.exitCode !== null || this.child.signalCode) return;
    const ended = once(this.child, 'close');
    this.child.kill('SIGTERM');
    await ended;
  }
}
