import { createReadStream } from 'node:fs';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import path from 'node:path';

/** Serves the files of a directory on loopback, as a repository of a site does. */
export class RepositoryServer {
  /** What was asked for, as `HEAD /repodata/repomd.xml`. */
  readonly requests: string[] = [];
  /** Answers this status to everything, while it is set. */
  status: number | null = null;
  private server: Server | null = null;

  constructor(private readonly directory: string) {}

  /** @param port 0 for a free one */
  async start(port = 0): Promise<this> {
    this.server = createServer((request, response) => {
      this.requests.push(`${request.method} ${request.url}`);
      if (this.status !== null) return void response.writeHead(this.status).end();
      const file = path.join(this.directory, path.posix.normalize(decodeURI(request.url!.split('?')[0]!)));
      createReadStream(file)
        .on('error', () => response.writeHead(404).end())
        .on('open', () => response.writeHead(200))
        .pipe(response);
    });
    await new Promise<void>((resolve) => this.server!.listen(port, '127.0.0.1', resolve));
    return this;
  }

  get port(): number {
    return (this.server!.address() as AddressInfo).port;
  }

  get url(): string {
    return `http://127.0.0.1:${this.port}`;
  }

  async stop(): Promise<void> {
    this.server?.closeAllConnections();
    await new Promise<void>((resolve) => (this.server ? this.server.close(() => resolve()) : resolve()));
  }
}
