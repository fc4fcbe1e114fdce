import http from 'node:http';

/** What a client gets. */
export interface Reply {
  status: number;
  reason: string;
  contentType: string;
  text: string;
}

/** A record of the service, or a problem, as a client indexes it. */
export type Fields = Record<string, unknown>;

/** JSON as Python's `json.dumps` writes it, which the `requests` library does: a blank after each comma and colon, ASCII only. */
export function pythonJson(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(pythonJson).join(', ')}]`;
  if (value !== null && typeof value === 'object') {
    const members = Object.entries(value).map(([name, member]) => `${pythonJson(name)}: ${pythonJson(member)}`);
    return `{${members.join(', ')}}`;
  }
  return JSON.stringify(value).replace(
    /[\u0080-\uffff]/g,
    (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`,
  );
}

/** JSON as Go's `encoding/json` writes a map: members in the order of their names, no blanks. */
export function goJson(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(goJson).join(',')}]`;
  if (value === null || typeof value !== 'object') return JSON.stringify(value);
  const members = Object.entries(value).toSorted(([one], [other]) => (one < other ? -1 : 1));
  return `{${members.map(([name, member]) => `${goJson(name)}:${goJson(member)}`).join(',')}}`;
}

/** How a client's library writes requests. */
export interface Library {
  json(value: unknown): string;
  /** Names and values of a request's headers, in the order in which they go out. */
  headers(host: string, more: readonly string[], body: string | null, method: string): string[];
}

/** Python's `requests`: the headers of the session, then the client's own, then those of the body. */
export const PYTHON_REQUESTS: Library = {
  json: pythonJson,
  headers(host, more, body, method) {
    const session = ['User-Agent', 'python-requests/2.28.1', 'Accept-Encoding', 'gzip, deflate', 'Accept', '*/*'];
    const length = body === null ? 0 : Buffer.byteLength(body);
    // Without a body `requests` tells a length of 0, but for GET and HEAD.
    const ofBody = body === null && ['GET', 'HEAD'].includes(method) ? [] : ['Content-Length', String(length)];
    const type = body === null ? [] : ['Content-Type', 'application/json'];
    return ['Host', host, ...session, 'Connection', 'keep-alive', ...more, ...ofBody, ...type];
  },
};

/** Go's `resty`, which cmsdev uses. */
export const GO_RESTY: Library = {
  json: goJson,
  headers(host, more, body, method) {
    const length =
      body === null ? (method === 'GET' || method === 'DELETE' ? [] : ['0']) : [String(Buffer.byteLength(body))];
    const ofBody = length.flatMap((bytes) => ['Content-Length', bytes]);
    const type = body === null ? [] : ['Content-Type', 'application/json'];
    const agent = ['User-Agent', 'go-resty/2.7.0 (https://github.com/go-resty/resty)'];
    return ['Host', host, ...agent, ...ofBody, ...more, ...type, 'Accept-Encoding', 'gzip'];
  },
};

/** One client with one connection, which it keeps: requests follow one another on it as the client's library sends them. */
export class ClientSession {
  private readonly agent = new http.Agent({ keepAlive: true, maxSockets: 1 });

  /**
   * @param base what the client puts before every path: a version, the gateway's prefix, or nothing
   * @param more headers that the client adds to every request, names and values in turn
   */
  constructor(
    private readonly origin: string,
    private readonly base: string,
    private readonly library: Library = PYTHON_REQUESTS,
    private readonly more: readonly string[] = [],
  ) {}

  /** Sends one request; `body` is turned into JSON as the client's library does that. */
  request(method: string, path: string, body?: unknown): Promise<Reply> {
    const text = body === undefined ? null : this.library.json(body);
    const { host, hostname, port } = new URL(this.origin);
    const headers = this.library.headers(host, this.more, text, method);
    return new Promise((resolve, reject) => {
      const request = http.request(
        { agent: this.agent, hostname, port, method, path: this.base + path, headers, timeout: 60_000 },
        (response) => {
          const chunks: Buffer[] = [];
          response.on('data', (chunk: Buffer) => chunks.push(chunk));
          response.on('error', reject);
          response.on('end', () =>
            resolve({
              status: response.statusCode!,
              reason: response.statusMessage!,
              contentType: response.headers['content-type'] ?? '',
              text: Buffer.concat(chunks).toString('utf8'),
            }),
          );
        },
      );
      request.on('error', reject);
      request.end(text ?? undefined);
    });
  }

  /** Sends a request that the client takes for a failure unless it is answered with `status`. Returns what its JSON says; {} where there is none. */
  async expect(status: number, method: string, path: string, body?: unknown): Promise<Fields> {
    const reply = await this.request(method, path, body);
    if (reply.status !== status)
      throw new Error(`${method} ${this.base}${path}: ${reply.status} instead of ${status}: ${reply.text}`);
    if (status === 204) expect(reply.text).toBe('');
    else expect(reply.contentType).toMatch(/^application\/(problem\+)?json/);
    return status === 204 ? {} : (JSON.parse(reply.text) as Fields);
  }

  /** A list, which every client takes for complete and plain. */
  async list(path: string): Promise<Fields[]> {
    const records = await this.expect(200, 'GET', path);
    expect(Array.isArray(records)).toBe(true);
    return records as unknown as Fields[];
  }

  close(): void {
    this.agent.destroy();
  }
}
