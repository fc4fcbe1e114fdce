import { createReadStream } from 'node:fs';
import { createServer as createHttpServer, type RequestListener, type Server } from 'node:http';
import { createServer as createHttpsServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import path from 'node:path';

/** A certificate and its key, PEM. */
export interface Certificate {
  cert: string;
  key: string;
}

/** Serves the files of a directory, on loopback unless told otherwise, as a repository of a site does. */
export class RepositoryServer {
  /** What was asked for, as `HEAD /repodata/repomd.xml`. */
  readonly requests: string[] = [];
  /** Answers this status to everything, while it is set. */
  status: number | null = null;
  private server: Server | null = null;

  constructor(
    private readonly directory: string,
    /** With one it speaks https. */
    private readonly certificate: Certificate | null = null,
    private readonly host = '127.0.0.1',
  ) {}

  /** @param port 0 for a free one */
  async start(port = 0): Promise<this> {
    const answer: RequestListener = (request, response) => {
      this.requests.push(`${request.method} ${request.url}`);
      if (this.status !== null) {
        response.writeHead(this.status).end();
        return;
      }
      const file = path.join(this.directory, path.posix.normalize(decodeURI(request.url!.split('?')[0]!)));
      createReadStream(file)
        .on('error', () => response.writeHead(404).end())
        .on('open', () => response.writeHead(200))
        .pipe(response);
    };
    this.server = this.certificate ? createHttpsServer(this.certificate, answer) : createHttpServer(answer);
    await new Promise<void>((resolve) => this.server!.listen(port, this.host, resolve));
    return this;
  }

  get port(): number {
    return (this.server!.address() as AddressInfo).port;
  }

  get url(): string {
    return `${this.certificate ? 'https' : 'http'}://${this.host}:${this.port}`;
  }

  async stop(): Promise<void> {
    this.server?.closeAllConnections();
    await new Promise<void>((resolve) => (this.server ? this.server.close(() => resolve()) : resolve()));
  }
}
