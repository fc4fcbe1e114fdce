import { setTimeout as sleep } from 'node:timers/promises';
import type { KubeClient } from './kube-client.js';
import type { KubeObject, Resource } from './objects.js';

/** Milliseconds before a list that failed is asked for again. */
const PAUSE = 1000;
/** Milliseconds without a word from the API server after which what is known counts as old. A quiet watch ends sooner. */
const STALE = 90_000;

/**
 * What a cluster has of one resource, kept up to date by a watch. Every watch ends after a minute, and a list comes before each: what a watch
 * missed is known a minute later.
 */
export class ResourceWatch<T extends KubeObject> {
  private items = new Map<string, T>();
  private heard = 0;
  private failure: Error | null = null;
  private readonly abort = new AbortController();
  private readonly done: Promise<void>;

  constructor(
    private readonly client: KubeClient,
    private readonly resource: Resource<T>,
    private readonly selector: string,
    private readonly onChange: () => void,
  ) {
    this.done = this.run();
  }

  /** The objects by their names. Rejects while the API server has not answered. */
  async all(): Promise<ReadonlyMap<string, T>> {
    if (!this.heard) throw this.failure ?? new Error('the Kubernetes API server has not answered yet');
    return this.items;
  }

  /** Why nothing is known of the cluster now; null where it is. */
  get silence(): Error | null {
    return this.failure ?? (Date.now() - this.heard > STALE ? new Error('the Kubernetes API server is silent') : null);
  }

  /** Takes in what was just created, so that it is known before the watch tells of it. */
  learn(object: T): void {
    if (!this.items.has(object.metadata.name)) this.items.set(object.metadata.name, object);
  }

  /** Drops what is known to be gone. */
  forget(name: string): void {
    this.items.delete(name);
  }

  /** Ends the watch. */
  async stop(): Promise<void> {
    this.abort.abort();
    await this.done;
  }

  private async run(): Promise<void> {
    const { signal } = this.abort;
    while (!signal.aborted) {
      try {
        await this.follow(await this.read(), signal);
      } catch (error) {
        if (signal.aborted) return;
        this.failure = error as Error;
        await sleep(PAUSE, null, { signal }).catch(() => {});
      }
    }
  }

  /** Takes in a list; returns its version. */
  private async read(): Promise<string> {
    const { items, version } = await this.client.list(this.resource, this.selector);
    this.items = new Map(items.map((item) => [item.metadata.name, item]));
    this.heard = Date.now();
    this.onChange();
    return version;
  }

  private async follow(version: string, signal: AbortSignal): Promise<void> {
    const events = await this.client.watch(this.resource, this.selector, version, signal);
    // Who may list but not watch, does not know what goes on.
    this.failure = null;
    for await (const { type, object } of events) {
      this.heard = Date.now();
      if (type === 'BOOKMARK') continue;
      if (type === 'DELETED') this.items.delete(object.metadata.name);
      else this.items.set(object.metadata.name, object);
      this.onChange();
    }
  }
}
