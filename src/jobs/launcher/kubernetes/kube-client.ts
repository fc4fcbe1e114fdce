import { type IncomingMessage, request as httpRequest } from 'node:http';
import { request as httpsRequest, type RequestOptions } from 'node:https';
import { text } from 'node:stream/consumers';
import { KubeConfig } from '@kubernetes/client-node';
import { type Event, type KubeObject, type Resource, RESOURCE } from './objects.js';

/** Milliseconds that a request has to be answered. */
const TIMEOUT = 10_000;
/** Seconds after which the API server ends a watch by itself. */
const WATCH_SECONDS = 60;

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

/**
 * How the API server is reached, and who we are to it: by the kubeconfig that `KUBECONFIG` names, in a pod by its service account, whose token is
 * read anew as it is renewed.
 * @throws Error with a sentence where there is neither
 */
export function findCluster(): KubeConfig {
  const config = new KubeConfig();
  try {
    config.loadFromDefault();
  } catch (error) {
    throw new Error(`the kubeconfig cannot be used (${(error as Error).message}): set KUBECONFIG to a readable one`, {
      cause: error,
    });
  }
  // What the library takes where it finds nothing.
  if (config.getCurrentCluster()?.server === 'http://localhost:8080')
    throw new Error(
      'JOB_LAUNCHER=kubernetes finds no cluster: run the server as a pod with a service account, or set KUBECONFIG',
    );
  return config;
}

interface Ask {
  method: string;
  path: string;
  query?: Record<string, string>;
  body?: object;
  contentType?: string;
  signal?: AbortSignal;
}

/**
 * The part of the Kubernetes API that the launcher needs, in one namespace where nothing else is said. Every method rejects with KubeFailure; a request whose answer
 * got lost may have been carried out.
 */
export class KubeClient {
  constructor(
    private readonly config: KubeConfig,
    private readonly namespace: string,
  ) {}

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

  /** An object of any namespace by its name; null where there is none. */
  async get<T extends KubeObject>(resource: Resource<T>, name: string, namespace: string): Promise<T | null> {
    const path = `${this.pathOf(resource, namespace)}/${encodeURIComponent(name)}`;
    return this.json<T>({ method: 'GET', path }).catch((error: unknown) => {
      if (error instanceof KubeFailure && error.status === 404) return null;
      throw error;
    });
  }

  /** All objects with these labels, and the version of the list, from which a watch goes on. */
  list<T extends KubeObject>(resource: Resource<T>, labelSelector: string): Promise<{ items: T[]; version: string }> {
    return this.select(resource, { labelSelector });
  }

  /** What the cluster warns of about an object. */
  async warnings(name: string): Promise<Event[]> {
    const { items } = await this.select(RESOURCE.event, { fieldSelector: `involvedObject.name=${name},type=Warning` });
    return items;
  }

  private async select<T extends KubeObject>(
    resource: Resource<T>,
    query: Record<string, string>,
  ): Promise<{ items: T[]; version: string }> {
    const answer = await this.json<{ items: T[]; metadata: { resourceVersion: string } }>({
      method: 'GET',
      path: this.pathOf(resource),
      query,
    });
    return { items: answer.items, version: answer.metadata.resourceVersion };
  }

  /**
   * What happens to objects with these labels after a version. Resolves when the API server has begun to tell; it ends after a minute or so, or
   * when it is aborted.
   * @throws KubeFailure with status 410, or as an event, where the version is too old
   */
  async watch<T extends KubeObject>(
    resource: Resource<T>,
    labelSelector: string,
    resourceVersion: string,
    abort: AbortSignal,
  ): Promise<AsyncGenerator<WatchEvent<T>>> {
    // A server that hangs ends nothing by itself.
    const signal = AbortSignal.any([abort, AbortSignal.timeout((WATCH_SECONDS + 10) * 1000)]);
    const query = { labelSelector, resourceVersion, watch: 'true', timeoutSeconds: String(WATCH_SECONDS) };
    return eventsOf(await this.open({ method: 'GET', path: this.pathOf(resource), query, signal }), abort);
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

  /** Whether the API server offers a resource that it need not have. */
  async offers({ api, plural }: Resource): Promise<boolean> {
    return this.json<{ resources: { name: string }[] }>({ method: 'GET', path: api }).then(
      ({ resources }) => resources.some(({ name }) => name === plural),
      (error: unknown) => {
        if (error instanceof KubeFailure && error.status === 404) return false;
        throw error;
      },
    );
  }

  private pathOf({ api, plural }: Resource, namespace = this.namespace): string {
    return `${api}/namespaces/${encodeURIComponent(namespace)}/${plural}`;
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
    const url = new URL(this.server + ask.path);
    for (const [name, value] of Object.entries(ask.query ?? {})) url.searchParams.set(name, value);
    const headers: Record<string, string> = { accept: 'application/json' };
    if (ask.contentType) headers['content-type'] = ask.contentType;
    const body = ask.body && Buffer.from(JSON.stringify(ask.body));
    // Node sends the body of a DELETE without a word of where it ends.
    if (body) headers['content-length'] = String(body.length);
    const { method, signal } = ask;
    const options: RequestOptions = { method, headers, signal };
    await this.config.applyToHTTPSOptions(options);
    const response = await this.send(url, options, body);
    if (response.statusCode! < 300) return response;
    throw new KubeFailure(await messageOf(response), response.statusCode!);
  }

  private send(url: URL, options: RequestOptions, body?: Buffer): Promise<IncomingMessage> {
    // Plain HTTP is what the double of the API server speaks; a cluster has TLS.
    const request = url.protocol === 'http:' ? httpRequest : httpsRequest;
    return new Promise((resolve, reject) => {
      const sent = request(url, options, resolve);
      // An answer that does not begin in time does not come.
      const timer = setTimeout(() => sent.destroy(new Error('no answer in time')), TIMEOUT);
      sent.once('response', () => clearTimeout(timer));
      sent.once('close', () => clearTimeout(timer));
      sent.on('error', (error) => reject(unreachable(error)));
      sent.end(body);
    });
  }

  /** As `https://10.96.0.1:443`; behind a proxy with a path. */
  private get server(): string {
    return this.config.getCurrentCluster()!.server.replace(/\/+$/, '');
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

async function* eventsOf<T extends KubeObject>(
  response: IncomingMessage,
  abort: AbortSignal,
): AsyncGenerator<WatchEvent<T>> {
  for await (const line of linesOf(response, abort)) {
    const event = JSON.parse(line) as WatchEvent<T> | { type: 'ERROR'; object: { code: number; message: string } };
    if (event.type === 'ERROR') throw new KubeFailure(event.object.message, event.object.code);
    yield event;
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
