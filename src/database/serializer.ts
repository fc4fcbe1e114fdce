import {
  type CallHandler,
  type ExecutionContext,
  Injectable,
  type NestInterceptor,
  StreamableFile,
} from '@nestjs/common';
import { instanceToPlain } from 'class-transformer';
import type { FastifyReply, FastifyRequest } from 'fastify';
import { map, type Observable } from 'rxjs';
import { isVersion3, Json, Page, WouldBe } from './json.js';
import { V3_ONLY } from './wire.js';

/** Sends JSON of the database as it is, and turns entities into what the asked version tells of them. No answer is 204, a dry run 200. */
@Injectable()
export class Serializer implements NestInterceptor {
  intercept(context: ExecutionContext, next: CallHandler): Observable<unknown> {
    const http = context.switchToHttp();
    const request = http.getRequest<FastifyRequest>();
    const reply = http.getResponse<FastifyReply>();
    return next.handle().pipe(map((answer: object | undefined) => send(answer, request, reply)));
  }
}

function send(answer: object | undefined, request: FastifyRequest, reply: FastifyReply): unknown {
  if (answer instanceof StreamableFile) return answer;
  if (answer === undefined) void reply.code(204);
  if (answer instanceof WouldBe) {
    void reply.code(200);
    return send(answer.answer, request, reply);
  }
  if ((answer instanceof Json || answer instanceof Page) && answer.next)
    void reply.header('link', `<${nextUrl(request, answer.next)}>; rel="next"`);
  if (!(answer instanceof Json)) return told(answer instanceof Page ? answer.items : answer, request);
  void reply.header('content-type', 'application/json; charset=utf-8');
  return answer.text;
}

/** An entity as the asked version tells of it. */
export function told(answer: object | undefined, request: FastifyRequest): unknown {
  return answer && instanceToPlain(answer, { groups: isVersion3(request) ? [V3_ONLY] : [] });
}

/** The url of the request as its client sent it, with another `after`. */
function nextUrl({ originalUrl }: FastifyRequest, after: string): string {
  const url = new URL(originalUrl, 'http://localhost');
  url.searchParams.set('after', after);
  return `${url.pathname}${url.search}`;
}
