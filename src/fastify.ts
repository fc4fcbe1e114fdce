import { FastifyAdapter, type NestFastifyApplication } from '@nestjs/platform-fastify';
import type { FastifyError, FastifyReply, FastifyRequest } from 'fastify';
import type { Config } from './config/config.js';
import { problemOf, sendProblem } from './errors/problem.filter.js';
import { problems } from './errors/problems.js';

/** Prefix under which API gateways publish the service. */
const GATEWAY_PREFIX = '/apis/ims';
/** Deepest nesting of a body: a parser that recurses must never meet a hundred thousand brackets. */
const NESTING_LIMIT = 64;

/** The url as routes know it: without the gateway's prefix, with single slashes. */
export function normalizeUrl(url: string): string {
  const query = url.indexOf('?');
  const path = (query < 0 ? url : url.slice(0, query)).replace(/\/{2,}/g, '/');
  const stripped =
    path === GATEWAY_PREFIX || path.startsWith(`${GATEWAY_PREFIX}/`) ? path.slice(GATEWAY_PREFIX.length) || '/' : path;
  return query < 0 ? stripped : stripped + url.slice(query);
}

/** How deep brackets are nested in a JSON text; brackets inside of strings do not count. */
export function nestingOf(json: string): number {
  let depth = 0;
  let deepest = 0;
  for (const [token] of json.matchAll(/"(?:[^"\\]|\\.)*"|[[{\]}]/gs)) {
    if (token === '[' || token === '{') deepest = Math.max(deepest, ++depth);
    else if (token === ']' || token === '}') depth--;
  }
  return deepest;
}

/** Reads a body. An empty one is undefined, since clients send `DELETE` with a content type and nothing behind it. */
export function parseJson(body: Buffer): unknown {
  if (!body.length) return undefined;
  let text: string;
  try {
    text = new TextDecoder('utf-8', { fatal: true }).decode(body);
  } catch {
    throw problems.malformedJson('it is not UTF-8');
  }
  if (nestingOf(text) > NESTING_LIMIT) throw problems.malformedJson(`it is nested deeper than ${NESTING_LIMIT} levels`);
  try {
    return JSON.parse(text) as unknown;
  } catch (error) {
    throw problems.malformedJson((error as Error).message);
  }
}

/** Fastify as this service needs it. */
export function fastifyAdapter(config: Pick<Config, 'maxBodyBytes'>): FastifyAdapter {
  return new FastifyAdapter({
    bodyLimit: config.maxBodyBytes,
    forceCloseConnections: true,
    routerOptions: { ignoreTrailingSlash: true, maxParamLength: 8192 },
    rewriteUrl: (request: { url?: string }) => normalizeUrl(request.url ?? '/'),
    // Bad escapes in a path never reach Nest's filters.
    frameworkErrors: (error: FastifyError, request: FastifyRequest, reply: FastifyReply) =>
      sendProblem(reply, problemOf(error, request, config.maxBodyBytes) ?? problems.malformedRequest(error.message)),
  } as never);
}

/** JSON of every kind is read by our parser; any other content type is refused, also where the body is empty and one is needed. */
export function useJsonBodies(app: NestFastifyApplication): void {
  const fastify = app.getHttpAdapter().getInstance();
  fastify.removeAllContentTypeParsers();
  fastify.addContentTypeParser(
    /^application\/(?:json|[\w.+-]+\+json)\s*(?:;|$)/i,
    { parseAs: 'buffer' },
    (_request, body, done: (error: Error | null, value?: unknown) => void) => {
      try {
        done(null, parseJson(body as Buffer));
      } catch (error) {
        done(error as Error);
      }
    },
  );
}
