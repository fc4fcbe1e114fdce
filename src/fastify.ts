import { FastifyAdapter, type NestFastifyApplication } from '@nestjs/platform-fastify';
import type { Socket } from 'node:net';
import type { FastifyError, FastifyReply, FastifyRequest } from 'fastify';
import type { Config } from './config/config.js';
import { JsonBody } from './errors/json-body.js';
import { problemOf, sendProblem } from './errors/problem.filter.js';
import { type Problem, problems } from './errors/problems.js';

/** Prefix under which API gateways publish the service. */
const GATEWAY_PREFIX = '/apis/ims';

/** What stands before the path where a client sends a whole url, as it would to a proxy; servers have to take that (RFC 9112 section 3.2.2). */
const ORIGIN = /^https?:\/\/[^/?#]*/i;

/** The url as routes know it: without an origin and the gateway's prefix, with single slashes. */
export function normalizeUrl(sent: string): string {
  const url = sent.replace(ORIGIN, '');
  const query = url.indexOf('?');
  const path = (query < 0 ? url : url.slice(0, query)).replace(/\/{2,}/g, '/');
  const stripped =
    path === GATEWAY_PREFIX || path.startsWith(`${GATEWAY_PREFIX}/`) ? path.slice(GATEWAY_PREFIX.length) || '/' : path;
  return query < 0 ? stripped : stripped + url.slice(query);
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
    clientErrorHandler: refuseUnreadable,
  } as never);
}

/** Answers what is no HTTP, or of a method that there is not: it never becomes a request. */
function refuseUnreadable(error: NodeJS.ErrnoException, socket: Socket): void {
  // The client has gone already.
  if (error.code === 'ECONNRESET' || !socket.writable) return void socket.destroy();
  const { status, title, detail, code } = unreadable(error);
  const body = JSON.stringify({ status, title, detail, code });
  const headers = ['Content-Type: application/problem+json', `Content-Length: ${Buffer.byteLength(body)}`];
  socket.end([`HTTP/1.1 ${status} ${title}`, ...headers, 'Connection: close', '', body].join('\r\n'));
}

function unreadable({ code, message }: NodeJS.ErrnoException): Problem {
  if (code === 'HPE_HEADER_OVERFLOW') return problems.headersTooLarge();
  if (code === 'ERR_HTTP_REQUEST_TIMEOUT') return problems.requestTooSlow();
  return problems.malformedRequest(message.replace(/^Parse Error: /, ''));
}

/** Bodies of all kinds reach the validation pipe as they arrived: what they are for is looked at first. */
export function useJsonBodies(app: NestFastifyApplication): void {
  const fastify = app.getHttpAdapter().getInstance();
  fastify.removeAllContentTypeParsers();
  fastify.addContentTypeParser(
    '*',
    { parseAs: 'buffer' },
    (request, body, done: (error: Error | null, value?: unknown) => void) =>
      done(null, new JsonBody(request.headers['content-type'], body as Buffer)),
  );
}
