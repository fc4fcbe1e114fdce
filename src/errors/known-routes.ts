import type { FastifyInstance } from 'fastify';

/** Which methods each path takes. Fastify answers 404 to a wrong method, which tells the client that the path is wrong. */
export class KnownRoutes {
  private readonly methods = new Map<string, { pattern: RegExp; methods: Set<string> }>();

  /** Listens for routes; made before they are registered. Answers OPTIONS on each. */
  constructor(fastify: FastifyInstance) {
    fastify.addHook('onRoute', ({ url, method }) => this.add(url, [method].flat()));
    fastify.addHook('onRequest', (request, reply, done) => {
      const allowed = request.method === 'OPTIONS' ? this.allowed(request.url) : [];
      if (!allowed.length) return done();
      void reply.code(200).header('Allow', allowed.join(', ')).send();
    });
  }

  private add(url: string, methods: readonly string[]): void {
    const pattern = new RegExp(
      `^${url
        .replace(/[.+?^${}()|[\]\\]/g, '\\$&')
        .replaceAll('*', '.*')
        .replace(/:[^/]+/g, '[^/]+')}/?$`,
    );
    const route = this.methods.get(url) ?? { pattern, methods: new Set() };
    for (const method of methods) route.methods.add(method);
    this.methods.set(url, route);
  }

  /** The methods of a path in alphabetical order; none where there is no such path. */
  allowed(url: string): string[] {
    const path = url.split('?')[0]!;
    const routes = [...this.methods.values()].filter(({ pattern }) => pattern.test(path));
    const methods = new Set(routes.flatMap((route) => [...route.methods]));
    return methods.size ? [...methods.add('OPTIONS')].toSorted() : [];
  }
}
