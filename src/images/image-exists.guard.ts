import { type CanActivate, type ExecutionContext, Injectable } from '@nestjs/common';
import type { FastifyRequest } from 'fastify';
import { IdPipe } from '../errors/id.pipe.js';
import { ImagesService } from './images.service.js';

/** A request for an image that there is not ends here, before its body is checked. */
@Injectable()
export class ImageExists implements CanActivate {
  private readonly idPipe = new IdPipe();

  constructor(private readonly images: ImagesService) {}

  async canActivate(context: ExecutionContext): Promise<boolean> {
    const { id } = context.switchToHttp().getRequest<FastifyRequest<{ Params: { id: string } }>>().params;
    await this.images.get(this.idPipe.transform(id));
    return true;
  }
}
