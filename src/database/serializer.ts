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
import { isVersion3, Json } from './json.js';
import { V3_ONLY } from './wire.js';

/** Sends JSON of the database as it is, and turns entities into what the asked version tells of them. */
@Injectable()
export class Serializer implements NestInterceptor {
  intercept(context: ExecutionContext, next: CallHandler): Observable<unknown> {
    const http = context.switchToHttp();
    const groups = isVersion3(http.getRequest<FastifyRequest>()) ? [V3_ONLY] : [];
    return next.handle().pipe(
      map((answer: object | undefined) => {
        if (answer instanceof StreamableFile) return answer;
        if (!(answer instanceof Json)) return answer && instanceToPlain(answer, { groups });
        http.getResponse<FastifyReply>().header('content-type', 'application/json; charset=utf-8');
        return answer.text;
      }),
    );
  }
}
