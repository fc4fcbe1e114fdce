import { type BeforeApplicationShutdown, Injectable } from '@nestjs/common';
import type { FastifyReply } from 'fastify';

/** Answers that go on as long as their client listens. They end when it goes, and when the server stops. */
@Injectable()
export class OpenStreams implements BeforeApplicationShutdown {
  private readonly open = new Set<AbortController>();

  /** A signal that is aborted when the answer has no reader any more. */
  track(reply: FastifyReply): AbortSignal {
    const controller = new AbortController();
    this.open.add(controller);
    reply.raw.once('close', () => {
      this.open.delete(controller);
      controller.abort();
    });
    return controller.signal;
  }

  beforeApplicationShutdown(): void {
    for (const controller of this.open) controller.abort();
  }
}
