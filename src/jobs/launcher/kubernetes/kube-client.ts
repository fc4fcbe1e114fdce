import { readFile } from 'node:fs/promises';
import { Agent as HttpAgent, type IncomingMessage, request as httpRequest } from 'node:http';
import { Agent as HttpsAgent, type AgentOptions, request as httpsRequest } from 'node:https';
import { text } from 'node:stream/consumers';
import { type KubeObject, type Resource, RESOURCE } from './objects.js';

/** Milliseconds that a request has to be answered. */
const TIMEOUT = 10_000;
/** Seconds after which the API server ends a watch by itself. */
const WATCH_SECONDS = 60;

/** How the API server is reached, and who we are to it. */
export interface KubeConnection {
  /** As `https://10.96.0.1:443`. */
  server: string;
  /** CA certificate, client certificate and its key, PEM. */
  tls: Pick<AgentOptions, 'ca' | 'cert' | 'key'>;
  /** The token of a service account; null where a client certificate says who we are. Asked for again with each request: it is renewed. */
  token: (() => Promise<string>) | null;
}

/** The API server refused a request, or could not be asked. */
export class KubeFailure extends Error {
  constructor(
    message: string,
    /** HTTP status; null where there was no answer: then it is not known whether the request was carried out. */
    readonly status: number | null,
    options?: ErrorOptions,
  ) {
    super(message, options);
    this.name = 'KubeFailure';
  }
}

/** A change that a watch tells of. */
export interface WatchEvent<T extends KubeObject> {
  type: 'ADDED' | 'MODIFIED' | 'DELETED' | 'BOOKMARK';
  object: T;
}

/** Where Kubernetes puts what a pod needs to speak to its API server. */
const SERVICE_ACCOUNT = '/var/run/secrets/kubernetes.io/serviceaccount';

/**
 * The connection of a pod to the API server of its cluster.
 * @param host `KUBERNETES_SERVICE_HOST` of the pod
 * @param port `KUBERNETES_SERVICE_PORT` of the pod
 * @throws Error with a sentence where this is no pod
 */
export async function connectionOfPod(host: string, port: number): Promise<KubeConnection> {
  const ca = await readFile(`${SERVICE_ACCOUNT}/ca.crt`, 'utf8').catch((error: unknown) => {
    throw new Error(
      'JOB_LAUNCHER=kubernetes needs a service account: run the server as a pod with automountServiceAccountToken',
      { cause: error },
    );
  });
  const address = host.includes(':') ? `[${host}]` : host;
  const token = () => readFile(`${SERVICE_ACCOUNT}/token`, 'utf8');
  return { server: `https://${address}:${port}`, tls: { ca }, token };
}

interface Ask {
  method: string;
  path: string;
  query?: Record<string, string>;
  body?: object;
  contentType?: string;
  signal?: AbortSignal;
}

type Sent = Omit<Ask, 'body'> & { body?: Buffer };

/**
 * The part of the Kubernetes API that the launcher needs, in one namespace. Every method rejects with KubeFailure; a request whose answer
 * got lost may have been carried out.
 */
export class KubeClient {
  private readonly agent: HttpAgent;
  private readonly isPlain: boolean;

  constructor(
    private readonly connection: KubeConnection,
    private readonly namespace: string,
  ) {
    // Plain HTTP is what the double of the API server speaks; a cluster has TLS.
    this.isPlain = connection.server.startsWith('http:');
    this.agent = this.isPlain
      ? new HttpAgent({ keepAlive: true })
      : new HttpsAgent({ keepAlive: true, ...connection.tls });
  }

  /** Creates an object. Members that the API does not know are an error, not dropped. */
  create<T extends KubeObject>(resource: Resource<T>, object: T): Promise<T> {
    return this.json({
      method: 'POST',
      path: this.pathOf(resource),
      query: { fieldValidation: 'Strict' },
      body: object,
      contentType: 'application/json',
    });
  }

  /** Changes members of an object (RFC 7386). */
  patch<T extends KubeObject>(resource: Resource<T>, name: string, change: object): Promise<T> {
    return this.json({
      method: 'PATCH',
      path: `${this.pathOf(resource)}/${name}`,
      query: { fieldValidation: 'Strict' },
      body: change,
      contentType: 'application/merge-patch+json',
    });
  }

  /**
   * Has an object, and in the background all that it owns, deleted.
   * @returns false where there is no such object (any more)
   */
  async delete(resource: Resource, name: string): Promise<boolean> {
    const body = { propagationPolicy: 'Background' };
    const path = `${this.pathOf(resource)}/${name}`;
    return this.json({ method: 'DELETE', path, body, contentType: 'application/json' }).then(
      () => true,
      (error: unknown) => {
        if (error instanceof KubeFailure && error.status === 404) return false;
        throw error;
      },
    );
  }

  /** All objects with these labels, and the version of the list, from which a watch goes on. */
  async list<T extends KubeObject>(
    resource: Resource<T>,
    labelSelector: string,
  ): Promise<{ items: T[]; version: string }> {
    const answer = await this.json<{ items: T[]; metadata: { resourceVersion: string } }>({
      method: 'GET',
      path: this.pathOf(resource),
      query: { labelSelector },
    });
    return { items: answer.items, version: answer.metadata.resourceVersion };
  }

  /**
   * What happens to objects with these labels after a version; ends after a minute or so, or when it is aborted.
   * @throws KubeFailure with status 410 where the version is too old
   */
  async *watch<T extends KubeObject>(
    resource: Resource<T>,
    labelSelector: string,
    resourceVersion: string,
    abort: AbortSignal,
  ): AsyncGenerator<WatchEvent<T>> {
    // A server that hangs ends nothing by itself.
    const signal = AbortSignal.any([abort, AbortSignal.timeout((WATCH_SECONDS + 10) * 1000)]);
    const query = { labelSelector, resourceVersion, watch: 'true', timeoutSeconds: String(WATCH_SECONDS) };
    const response = await this.open({ method: 'GET', path: this.pathOf(resource), query, signal });
    for await (const line of linesOf(response, abort)) {
      const event = JSON.parse(line) as WatchEvent<T> | { type: 'ERROR'; object: { code: number; message: string } };
      if (event.type === 'ERROR') throw new KubeFailure(event.object.message, event.object.code);
      yield event;
    }
  }

  /**
   * What a container of a pod printed, from its begin.
   * @param follow whether it goes on while the container runs
   */
  async *log(pod: string, container: string, follow: boolean, abort: AbortSignal | null): AsyncGenerator<Buffer> {
    try {
      yield* await this.open({
        method: 'GET',
        path: `${this.pathOf(RESOURCE.pod)}/${pod}/log`,
        query: { container, follow: String(follow) },
        signal: abort ?? undefined,
      });
    } catch (error) {
      if (abort?.aborted) return;
      throw error instanceof KubeFailure ? error : unreachable(error);
    }
  }

  /** Whether the API server offers a group of resources, as `/apis/networking.istio.io/v1`. */
  async offers(api: string): Promise<boolean> {
    return this.json({ method: 'GET', path: api }).then(
      () => true,
      (error: unknown) => {
        if (error instanceof KubeFailure && error.status === 404) return false;
        throw error;
      },
    );
  }

  /** Closes the connections. */
  close(): void {
    this.agent.destroy();
  }

  private pathOf({ api, plural }: Resource): string {
    return `${api}/namespaces/${encodeURIComponent(this.namespace)}/${plural}`;
  }

  private async json<T>(ask: Ask): Promise<T> {
    const response = await this.open({ ...ask, signal: AbortSignal.timeout(TIMEOUT) });
    return JSON.parse(
      await text(response).catch((error: unknown) => {
        throw unreachable(error);
      }),
    ) as T;
  }

  /** Sends a request and resolves when its answer begins. */
  private async open(ask: Ask): Promise<IncomingMessage> {
    const url = new URL(ask.path, this.connection.server);
    for (const [name, value] of Object.entries(ask.query ?? {})) url.searchParams.set(name, value);
    const token = await this.connection.token?.();
    const headers: Record<string, string> = { accept: 'application/json' };
    if (ask.contentType) headers['content-type'] = ask.contentType;
    const body = ask.body && Buffer.from(JSON.stringify(ask.body));
    // Node sends the body of a DELETE without a word of where it ends.
    if (body) headers['content-length'] = String(body.length);
    if (token) headers['authorization'] = `Bearer ${token.trim()}`;
    const response = await this.send(url, headers, { ...ask, body });
    if (response.statusCode! < 300) return response;
    throw new KubeFailure(await messageOf(response), response.statusCode!);
  }

  private send(url: URL, headers: Record<string, string>, { method, body, signal }: Sent): Promise<IncomingMessage> {
    const request = this.isPlain ? httpRequest : httpsRequest;
    return new Promise((resolve, reject) => {
      const sent = request(url, { method, headers, agent: this.agent, signal }, resolve);
      // An answer that does not begin in time does not come.
      const timer = setTimeout(() => sent.destroy(new Error('no answer in time')), TIMEOUT);
      sent.once('response', () => clearTimeout(timer));
      sent.once('close', () => clearTimeout(timer));
      sent.on('error', (error) => reject(unreachable(error)));
      sent.end(body);
    });
  }
}

function unreachable(cause: unknown): KubeFailure {
  const { code, message } = cause as NodeJS.ErrnoException;
  return new KubeFailure(`the Kubernetes API server cannot be reached (${code ?? message})`, null, { cause });
}

/** The API server answers with a Status object, a proxy before it with anything. */
async function messageOf(response: IncomingMessage): Promise<string> {
  const body = await text(response).catch(() => '');
  try {
    return (JSON.parse(body) as { message: string }).message;
  } catch {
    return `the Kubernetes API server answered ${response.statusCode}`;
  }
}

async function* linesOf(response: IncomingMessage, abort: AbortSignal): AsyncGenerator<string> {
  let rest = '';
  response.setEncoding('utf8');
  try {
    for await (const chunk of response as AsyncIterable<string>) {
      const lines = (rest + chunk).split('\n');
      rest = lines.pop()!;
      for (const line of lines) if (line) yield line;
    }
  } catch (error) {
    if (!abort.aborted) throw unreachable(error);
  }
}
