import { type CanActivate, type ExecutionContext, Injectable } from '@nestjs/common';
import type { FastifyRequest } from 'fastify';
import { IdPipe } from '../errors/id.pipe.js';
import { JobsService } from './jobs.service.js';

/** A request for a job that there is not ends here, before its body is checked. */
@Injectable()
export class JobExists implements CanActivate {
  private readonly idPipe = new IdPipe();

  constructor(private readonly jobs: JobsService) {}

  async canActivate(context: ExecutionContext): Promise<boolean> {
    const { id } = context.switchToHttp().getRequest<FastifyRequest<{ Params: { id: string } }>>().params;
    await this.jobs.get(this.idPipe.transform(id));
    return true;
  }
}
