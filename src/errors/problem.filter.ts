import { randomUUID } from 'node:crypto';
import { type ArgumentsHost, Catch, type ExceptionFilter, HttpException, Logger } from '@nestjs/common';
import type { FastifyReply, FastifyRequest } from 'fastify';
import { ArtifactStoreFailure } from '../artifacts/artifact-store.js';
import { type KnownRoutes } from './known-routes.js';
import { Problem, problems } from './problems.js';

/** SQLSTATE classes of a server that is away, stops, or has no connection left. */
const DATABASE_AWAY = /^(08|53|57P)/;
const SOCKET_AWAY = new Set(['ECONNREFUSED', 'ECONNRESET', 'ENOENT', 'EPIPE', 'ETIMEDOUT']);

function isDatabaseAway(error: { code?: unknown; driverError?: { code?: unknown; message?: string } }): boolean {
  const code = String(error.driverError?.code ?? error.code ?? '');
  const message = error.driverError?.message ?? (error instanceof Error ? error.message : '');
  return (
    DATABASE_AWAY.test(code) ||
    (SOCKET_AWAY.has(code) && 'syscall' in error) ||
    /Connection terminated|timeout exceeded when trying to connect/.test(message)
  );
}

/** The problem that stands for an error, whoever threw it. */
export function problemOf(
  error: unknown,
  request: { method: string; url: string },
  maxBodyBytes: number,
): Problem | null {
  if (error instanceof Problem) return error;
  if (error instanceof ArtifactStoreFailure) return problems.storeUnavailable(error.message);
  const { statusCode, code } = error as { statusCode?: number; code?: string };
  // A path that is no UTF-8 names nothing.
  if (code === 'FST_ERR_BAD_URL') return problems.noSuchRoute(request.url.split('?')[0]!);
  if (error instanceof HttpException && error.getStatus() === 404)
    return problems.noSuchRoute(request.url.split('?')[0]!);
  const status = error instanceof HttpException ? error.getStatus() : statusCode;
  if (status === 413) return problems.bodyTooLarge(maxBodyBytes);
  if (status && status >= 400 && status < 500) return problems.malformedRequest((error as Error).message);
  return isDatabaseAway(error as never) ? problems.databaseUnavailable() : null;
}

/** The only place that writes an error response. */
@Catch()
export class ProblemFilter implements ExceptionFilter {
  private readonly log = new Logger(ProblemFilter.name);

  constructor(
    private readonly maxBodyBytes: number,
    private readonly routes: KnownRoutes,
  ) {}

  catch(error: unknown, host: ArgumentsHost): void {
    const request = host.switchToHttp().getRequest<FastifyRequest>();
    const problem = problemOf(error, request, this.maxBodyBytes) ?? this.unexpected(error, request);
    const allowed = problem.code === 'no-such-route' ? this.routes.allowed(request.url) : [];
    const answer = allowed.length ? problems.methodNotAllowed(request.method, allowed) : problem;
    sendProblem(host.switchToHttp().getResponse<FastifyReply>(), answer);
  }

  private unexpected(error: unknown, request: FastifyRequest): Problem {
    const id = randomUUID();
    this.log.error(error, { error_id: id, method: request.method, route: request.routeOptions.url });
    return problems.internal(id);
  }
}

/** Writes a problem. A buffer keeps Fastify from adding a charset to the content type. */
export function sendProblem(reply: FastifyReply, problem: Problem): void {
  void reply
    .code(problem.status)
    .headers(problem.headers)
    .header('content-type', 'application/problem+json')
    .send(Buffer.from(JSON.stringify(problem)));
}
