import { randomUUID } from 'node:crypto';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { text } from 'node:stream/consumers';
import type { BatchJob, KubeObject, Pod } from '../../src/jobs/launcher/kubernetes/objects.js';

/** An object of any kind. */
type Stored = KubeObject & { spec?: object; status?: object };

interface Watcher {
  path: string;
  selector: URLSearchParams;
  response: ServerResponse;
}

/** A request as a test can look at it. */
export interface SeenRequest {
  method: string;
  path: string;
  query: URLSearchParams;
  body: unknown;
}

/**
 * Just so much of a Kubernetes API server that the launcher runs against it: objects with versions and owners, label selectors, watches,
 * merge patches, logs; and of the controllers that a Job makes a pod, that the pod's deadline ends it, and that what an owner left goes.
 */
export class FakeKubernetes {
  readonly objects = new Map<string, Stored>();
  readonly requests: SeenRequest[] = [];
  /** Groups that this cluster offers. */
  readonly groups = new Set(['/apis/batch/v1', '/api/v1']);
  private readonly logs = new Map<string, string>();
  private readonly followers = new Map<string, Set<ServerResponse>>();
  private readonly watchers = new Set<Watcher>();
  private version = 1;
  private refusals: { matches: (request: SeenRequest) => boolean; status: number; message: string }[] = [];
  /** Whether pods begin as soon as they are made. */
  startsPods = true;
  /** Whether the nodes answer: pods that are deleted stay, and say so, while they do not. */
  nodesAnswer = true;
  /** Why no pods are made; null where they are. */
  refusesPods: string | null = null;

  private constructor(private readonly server: Server) {
    server.on('request', (request, response) => void this.answer(request, response));
  }

  static async start(): Promise<FakeKubernetes> {
    const fake = new FakeKubernetes(createServer());
    await new Promise<void>((resolve) => fake.server.listen(0, '127.0.0.1', resolve));
    return fake;
  }

  get url(): string {
    return `http://127.0.0.1:${(this.server.address() as AddressInfo).port}`;
  }

  async close(): Promise<void> {
    this.server.closeAllConnections();
    await new Promise((resolve) => this.server.close(resolve));
  }

  /** Has an object be there, as if somebody else had made it. */
  put(plural: string, namespace: string, object: Stored): void {
    this.store(`/api/v1/namespaces/${namespace}/${plural}/${object.metadata.name}`, object, 'ADDED');
  }

  /** Refuses the next request that matches. */
  refuse(method: string, plural: string, status: number, message = 'refused by the test'): void {
    this.refusals.push({
      matches: (request) => request.method === method && request.path.includes(`/${plural}`),
      status,
      message,
    });
  }

  /** Ends all watches, as the restart of a server does. */
  dropWatches(): void {
    for (const { response } of this.watchers) response.destroy();
    this.watchers.clear();
  }

  /** The objects of a kind, by its name in urls. */
  all<T = Stored>(plural: string): T[] {
    return [...this.objects].filter(([path]) => path.split('/').at(-2) === plural).map(([, object]) => object as T);
  }

  podOf(jobId: string): Pod | undefined {
    return this.all<Pod>('pods').find(({ metadata }) => metadata.labels?.['app.kubernetes.io/instance'] === jobId);
  }

  /** Changes an object as a controller would. */
  change(object: KubeObject, change: object): void {
    const [path] = [...this.objects].find(([, stored]) => stored === object)!;
    this.store(path, merge(object, change) as Stored, 'MODIFIED');
  }

  /** Has a container of a job's pod print. */
  print(jobId: string, container: string, line: string): void {
    const name = `${this.podOf(jobId)!.metadata.name}/${container}`;
    this.logs.set(name, (this.logs.get(name) ?? '') + line);
    for (const response of this.followers.get(name) ?? []) response.write(line);
  }

  /** Ends the containers of a job's pod with this code. */
  end(jobId: string, exitCode: number): void {
    const terminated = (name: string) => ({
      name,
      state: { terminated: { exitCode, reason: exitCode ? 'Error' : 'Completed' } },
    });
    this.change(this.podOf(jobId)!, {
      status: {
        phase: exitCode ? 'Failed' : 'Succeeded',
        containerStatuses: ['buildenv-sidecar', 'sshd'].map(terminated),
      },
    });
    this.endFollowers(jobId);
  }

  private endFollowers(jobId: string): void {
    const { name } = this.podOf(jobId)!.metadata;
    for (const [log, followers] of this.followers)
      if (log.startsWith(`${name}/`)) for (const follower of followers) follower.end();
  }

  private async answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const url = new URL(request.url!, 'http://fake');
    const body = await text(request);
    const seen = {
      method: request.method!,
      path: url.pathname,
      query: url.searchParams,
      body: body ? JSON.parse(body) : null,
    };
    this.requests.push(seen);
    const refusal = this.refusals.findIndex(({ matches }) => matches(seen));
    if (refusal >= 0) {
      const [{ status, message }] = this.refusals.splice(refusal, 1) as unknown as [
        { status: number; message: string },
      ];
      return reply(response, status, { kind: 'Status', message, code: status });
    }
    if (seen.method === 'GET') return this.get(seen, response);
    if (seen.method === 'POST') return this.create(seen, response);
    const stored = this.objects.get(seen.path);
    if (!stored) return reply(response, 404, { kind: 'Status', message: `${seen.path} not found`, code: 404 });
    if (seen.method === 'PATCH') return this.patch(seen, stored, response);
    this.remove(seen.path);
    reply(response, 200, { kind: 'Status', status: 'Success' });
  }

  private get({ path, query }: SeenRequest, response: ServerResponse): void {
    if (path.endsWith('/log')) return this.log(path, query, response);
    if (!path.includes('/namespaces/'))
      return reply(response, this.groups.has(path) ? 200 : 404, { kind: 'APIResourceList', message: 'not found' });
    const isOne = path.split('/namespaces/')[1]!.split('/').length === 3;
    if (isOne) {
      const object = this.objects.get(path);
      return reply(response, object ? 200 : 404, object ?? { kind: 'Status', message: `${path} not found`, code: 404 });
    }
    const selector = new URLSearchParams((query.get('labelSelector') ?? '').replaceAll(',', '&'));
    if (query.get('watch') === 'true') {
      response.writeHead(200, { 'content-type': 'application/json' });
      response.flushHeaders();
      const watcher = { path, selector, response };
      this.watchers.add(watcher);
      response.on('close', () => this.watchers.delete(watcher));
      return;
    }
    const about = /involvedObject\.name=([^,]+)/.exec(query.get('fieldSelector') ?? '')?.[1];
    const items = [...this.objects].filter(
      ([name, object]) => isSelected(name, object, path, selector) && (!about || name.endsWith(`/${about}.17a`)),
    );
    reply(response, 200, {
      items: items.map(([, object]) => object),
      metadata: { resourceVersion: String(this.version) },
    });
  }

  private log(path: string, query: URLSearchParams, response: ServerResponse): void {
    const name = `${path.split('/').at(-2)}/${query.get('container')}`;
    response.writeHead(200, { 'content-type': 'text/plain' });
    response.flushHeaders();
    response.write(this.logs.get(name) ?? '');
    const pod = this.objects.get(path.replace(/\/log$/, '')) as Pod | undefined;
    if (query.get('follow') !== 'true' || pod?.status?.phase !== 'Running') return void response.end();
    const followers = this.followers.get(name) ?? new Set();
    this.followers.set(name, followers.add(response));
    response.on('close', () => followers.delete(response));
  }

  private create({ path, body }: SeenRequest, response: ServerResponse): void {
    const object = body as Stored;
    const name = `${path}/${object.metadata.name}`;
    if (this.objects.has(name)) return reply(response, 409, { message: `${name} already exists`, code: 409 });
    const made = {
      ...object,
      metadata: { ...object.metadata, uid: randomUUID(), creationTimestamp: new Date().toISOString() },
    };
    this.store(name, made, 'ADDED');
    reply(response, 201, this.objects.get(name)!);
    if (made.metadata.ownerReferences?.some(({ uid }) => !this.isThere(uid))) this.remove(name);
  }

  private isThere(uid: string): boolean {
    return [...this.objects.values()].some(({ metadata }) => metadata.uid === uid);
  }

  private patch({ path, body }: SeenRequest, stored: Stored, response: ServerResponse): void {
    this.store(path, merge(stored, body as object) as Stored, 'MODIFIED');
    if (path.includes('/jobs/')) this.makePod(this.objects.get(path) as BatchJob, path);
    if (path.includes('/pods/')) this.endPod(path);
    reply(response, 200, this.objects.get(path)!);
  }

  private makePod(job: BatchJob, path: string): void {
    const jobId = job.metadata.labels!['app.kubernetes.io/instance']!;
    if (job.spec.suspend || this.podOf(jobId)) return;
    if (this.refusesPods !== null) return this.warn(job.metadata.name, this.refusesPods, path);
    const name = `${job.metadata.name}-x7k2p`;
    const pod: Pod = {
      metadata: {
        name,
        uid: randomUUID(),
        labels: job.spec.template.metadata.labels,
        creationTimestamp: new Date().toISOString(),
        ownerReferences: [{ apiVersion: 'batch/v1', kind: 'Job', name: job.metadata.name, uid: job.metadata.uid! }],
      },
      status: this.startsPods
        ? {
            phase: 'Running',
            containerStatuses: ['buildenv-sidecar', 'sshd'].map((container) => ({
              name: container,
              state: { running: {} },
            })),
          }
        : { phase: 'Pending' },
    };
    this.store(`${path.replace(/\/apis\/batch\/v1(.*)\/jobs\/.*/, '/api/v1$1')}/pods/${name}`, pod as Stored, 'ADDED');
  }

  private warn(name: string, message: string, path: string): void {
    const event = { metadata: { name: `${name}.17a` }, reason: 'FailedCreate', message, involvedObject: { name } };
    this.store(`${path.replace(/\/apis\/batch\/v1(.*)\/jobs\/.*/, '/api/v1$1')}/events/${name}.17a`, event, 'ADDED');
  }

  /** A pod with a deadline is ended by its node. */
  private endPod(path: string): void {
    const pod = this.objects.get(path) as Pod;
    if (pod.spec?.activeDeadlineSeconds === undefined) return;
    this.store(path, merge(pod, { status: { phase: 'Failed', reason: 'DeadlineExceeded' } }) as Stored, 'MODIFIED');
    this.endFollowers(pod.metadata.labels!['app.kubernetes.io/instance']!);
  }

  /** Removes an object, and what it owns. */
  remove(path: string): void {
    const object = this.objects.get(path)!;
    if (path.includes('/pods/') && !this.nodesAnswer) {
      const deletionTimestamp = new Date().toISOString();
      return this.store(path, merge(object, { metadata: { deletionTimestamp } }) as Stored, 'MODIFIED');
    }
    this.objects.delete(path);
    this.tell(path, object, 'DELETED');
    for (const [name, { metadata }] of this.objects)
      if (metadata.ownerReferences?.some(({ uid }) => uid === object.metadata.uid)) this.remove(name);
  }

  private store(path: string, object: Stored, type: string): void {
    const stored = { ...object, metadata: { ...object.metadata, resourceVersion: String(++this.version) } };
    this.objects.set(path, stored);
    this.tell(path, stored, type);
  }

  private tell(name: string, object: Stored, type: string): void {
    for (const { path, selector, response } of this.watchers)
      if (isSelected(name, object, path, selector)) response.write(`${JSON.stringify({ type, object })}\n`);
  }
}

function isSelected(name: string, { metadata }: Stored, path: string, selector: URLSearchParams): boolean {
  const isOfKind = name.startsWith(`${path}/`) && !name.slice(path.length + 1).includes('/');
  return isOfKind && [...selector].every(([label, value]) => metadata.labels?.[label] === value);
}

/** JSON merge patch (RFC 7386). */
function merge(target: unknown, change: unknown): unknown {
  if (typeof change !== 'object' || change === null || Array.isArray(change)) return change;
  const result: Record<string, unknown> = { ...(target as object) };
  for (const [name, value] of Object.entries(change)) {
    if (value === null) delete result[name];
    else result[name] = merge(result[name], value);
  }
  return result;
}

function reply(response: ServerResponse, status: number, body: object): void {
  response.writeHead(status, { 'content-type': 'application/json' });
  response.end(JSON.stringify(body));
}
