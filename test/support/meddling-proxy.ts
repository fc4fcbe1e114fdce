import {
  createServer,
  type IncomingMessage,
  request as httpRequest,
  type Server,
  type ServerResponse,
} from 'node:http';
import type { AddressInfo } from 'node:net';

/** Answers a request itself and says true, or lets it through. */
export type Meddle = (request: IncomingMessage, response: ServerResponse) => boolean;

/** Stands between a client and an HTTP server, so that a test can see requests and have some fail. */
export class MeddlingProxy {
  /** Method and url of all requests so far. */
  readonly requests: string[] = [];
  /** The most requests that were open at once. */
  mostOpen = 0;
  meddle: Meddle = () => false;
  /** Drops the connection in place of the server's answer, for requests that this is true of. */
  loseAnswer: (request: IncomingMessage) => boolean = () => false;
  private open = 0;

  private constructor(
    private readonly target: URL,
    private readonly server: Server,
  ) {}

  static async start(endpoint: string): Promise<MeddlingProxy> {
    const server = createServer();
    const proxy = new MeddlingProxy(new URL(endpoint), server);
    server.on('request', (request, response) => proxy.answer(request, response));
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    return proxy;
  }

  get endpoint(): string {
    return `http://127.0.0.1:${(this.server.address() as AddressInfo).port}`;
  }

  async close(): Promise<void> {
    this.server.closeAllConnections();
    await new Promise((resolve) => this.server.close(resolve));
  }

  /** How many requests began like this. */
  count(pattern: RegExp): number {
    return this.requests.filter((request) => pattern.test(request)).length;
  }

  private answer(request: IncomingMessage, response: ServerResponse): void {
    this.requests.push(`${request.method} ${request.url}`);
    this.mostOpen = Math.max(this.mostOpen, ++this.open);
    response.once('close', () => this.open--);
    if (this.meddle(request, response)) {
      request.resume();
      return;
    }
    const { method, url: path, headers } = request;
    const onward = httpRequest({ port: this.target.port, method, path, headers });
    onward.on('error', () => response.destroy());
    onward.on('response', (answer) => {
      if (this.loseAnswer(request)) {
        answer.resume().once('end', () => response.destroy());
        return;
      }
      response.writeHead(answer.statusCode!, answer.headers);
      answer.pipe(response);
    });
    request.pipe(onward);
  }
}
