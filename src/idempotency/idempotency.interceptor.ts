import {
  applyDecorators,
  type CallHandler,
  type ExecutionContext,
  Injectable,
  type NestInterceptor,
  UseInterceptors,
} from '@nestjs/common';
import { ApiHeader } from '@nestjs/swagger';
import type { FastifyReply, FastifyRequest } from 'fastify';
import { catchError, mergeMap, type Observable, of } from 'rxjs';
import { Json } from '../database/json.js';
import { told } from '../database/serializer.js';
import { ApiProblems } from '../errors/api-problem.js';
import { JsonBody } from '../errors/json-body.js';
import { Problem, problems } from '../errors/problems.js';
import { IdempotencyKeys, type KeyedRequest } from './idempotency-keys.js';
import { planRecord } from './new-record.js';

/** Any text that a header carries without harm. */
const KEY = /^[\x21-\x7e]{1,255}$/;

/** Makes a request that a client repeats under the same Idempotency-Key once, and answers it as before. */
@Injectable()
export class IdempotencyInterceptor implements NestInterceptor {
  constructor(private readonly keys: IdempotencyKeys) {}

  async intercept(context: ExecutionContext, next: CallHandler): Promise<Observable<unknown>> {
    const http = context.switchToHttp();
    const request = http.getRequest<FastifyRequest>();
    const keyed = keyedRequest(request);
    if (!keyed) return next.handle();
    const claim = await this.keys.claim(keyed);
    if ('answer' in claim) {
      void http.getResponse<FastifyReply>().header('idempotency-replayed', 'true');
      return of(new Json(claim.answer));
    }
    planRecord(request, claim.record);
    return next.handle().pipe(
      mergeMap(async (answer: object) => {
        await this.keys.finish(keyed, answer instanceof Json ? answer.text : JSON.stringify(told(answer, request)));
        return answer;
      }),
      catchError(async (error: unknown) => this.fail(keyed, error)),
    );
  }

  /** What was refused may be sent again, corrected; of any other failure it is not known what it left. */
  private async fail(keyed: KeyedRequest, error: unknown): Promise<never> {
    const isRefused = error instanceof Problem && error.status < 500;
    // The database may be what failed; the lease runs out by itself then.
    await (isRefused ? this.keys.drop(keyed) : this.keys.release(keyed)).catch(() => {});
    throw error;
  }
}

/** The key of a request and what it stands for; null where it has none. */
function keyedRequest({ headers, url, body }: FastifyRequest): KeyedRequest | null {
  const key = headers['idempotency-key'];
  if (key === undefined) return null;
  if (typeof key !== 'string' || !KEY.test(key)) throw problems.badIdempotencyKey();
  const [route, query = ''] = url.split('?') as [string, string?];
  return {
    route: route.replace(/\/+$/, ''),
    key,
    fingerprint: `${body instanceof JsonBody ? body.digest() : ''}?${query}`,
  };
}

/** The route takes the header Idempotency-Key. */
export function Idempotent(): MethodDecorator {
  return applyDecorators(
    UseInterceptors(IdempotencyInterceptor),
    ApiHeader({
      name: 'Idempotency-Key',
      required: false,
      schema: { type: 'string', minLength: 1, maxLength: 255, pattern: '^[!-~]+$' },
      description:
        'Any text that the client makes up. Repeated with the same key within a day, the request makes nothing new and is answered as before.',
    }),
    ApiProblems(409),
  );
}
