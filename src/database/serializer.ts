import { type CallHandler, type ExecutionContext, Injectable, type NestInterceptor } from '@nestjs/common';
import { instanceToPlain } from 'class-transformer';
import type { FastifyRequest } from 'fastify';
import { map, type Observable } from 'rxjs';
import { V3_ONLY } from './wire.js';

/** Turns entities into what the asked version tells of them. */
@Injectable()
export class Serializer implements NestInterceptor {
  intercept(context: ExecutionContext, next: CallHandler): Observable<unknown> {
    const { url } = context.switchToHttp().getRequest<FastifyRequest>();
    const groups = url.startsWith('/v3/') ? [V3_ONLY] : [];
    return next.handle().pipe(map((answer: object | undefined) => answer && instanceToPlain(answer, { groups })));
  }
}
