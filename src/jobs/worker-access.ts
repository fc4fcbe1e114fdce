import { timingSafeEqual } from 'node:crypto';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { Inject, Injectable } from '@nestjs/common';
import { InjectRepository } from '@nestjs/typeorm';
import type { FastifyRequest } from 'fastify';
import { IsNull, Repository } from 'typeorm';
import type { Config } from '../config/config.js';
import { CONFIG } from '../config/config.module.js';
import { JsonBody } from '../errors/json-body.js';
import { type Problem, problems } from '../errors/problems.js';
import { Image } from '../images/image.entity.js';
import { JOB_TOKEN_HEADER } from '../protocol/job-report.js';
import { Job } from './job.entity.js';

/** Whether a request is about nothing but the job. */
type IsOwn = (request: FastifyRequest, job: Job) => boolean | Promise<boolean>;

/**
 * What workers may do. A request with the token of a job is about that job, whatever port it came to; a port of their own, where the site
 * has one, answers no others. So the pod of a job, whose user is root in it, reaches nothing but its own job.
 */
@Injectable()
export class WorkerAccess {
  private readonly allowed: Readonly<Record<string, IsOwn>> = {
    'GET /v3/jobs/:id': isOwnJob,
    // The user of a shell in a pod can read the token: when he has to leave is not for him to say.
    'PATCH /v3/jobs/:id': (request, job) => isOwnJob(request, job) && !movesDeadlines(request),
    'POST /v3/images': (request, job) => !job.ended && bodyOf(request)?.['job_id'] === job.id,
    'PATCH /v3/images/:id': (request, job) => !job.ended && this.isImageOf(idOf(request), job),
  };

  constructor(
    @InjectRepository(Job) private readonly jobs: Repository<Job>,
    @InjectRepository(Image) private readonly images: Repository<Image>,
    @Inject(CONFIG) private readonly config: Config,
  ) {}

  /** Whether a request is one of a worker, or comes to where only they are answered. */
  concerns({ headers, socket }: FastifyRequest): boolean {
    const { reportPort } = this.config;
    return headers[JOB_TOKEN_HEADER] !== undefined || (reportPort !== null && socket.localPort === reportPort);
  }

  /** Why a worker's request is refused; null where it is not. */
  async refusalOf(request: FastifyRequest): Promise<Problem | null> {
    const job = await this.jobOf(String(request.headers[JOB_TOKEN_HEADER] ?? ''));
    if (!job) return problems.jobTokenNeeded();
    const isOwn = this.allowed[`${request.method} ${request.routeOptions.url}`];
    return (await isOwn?.(request, job)) ? null : problems.jobTokenForbids();
  }

  private async jobOf(header: string): Promise<Job | null> {
    const [id, token] = header.split('.');
    if (!id || !token || !UUID.test(id)) return null;
    const job = await this.jobs.findOneBy({ id, deleted: IsNull() });
    return job?.token && isSame(job.token, token) ? job : null;
  }

  private isImageOf(id: string, job: Job): Promise<boolean> {
    return UUID.test(id) ? this.images.existsBy({ id, job_id: job.id }) : Promise.resolve(false);
  }
}

const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;

function isSame(one: string, other: string): boolean {
  const [a, b] = [Buffer.from(one), Buffer.from(other)];
  return a.length === b.length && timingSafeEqual(a, b);
}

function idOf(request: FastifyRequest): string {
  return (request.params as { id: string }).id;
}

function isOwnJob(request: FastifyRequest, job: Job): boolean {
  return idOf(request).toLowerCase() === job.id;
}

function movesDeadlines(request: FastifyRequest): boolean {
  const { shell_deadline, shell_idle_seconds } = bodyOf(request) ?? {};
  return shell_deadline !== undefined || shell_idle_seconds !== undefined;
}

/** What cannot be read is refused by the route itself, when it is allowed. */
function bodyOf({ body }: FastifyRequest): Record<string, unknown> | null {
  try {
    return body instanceof JsonBody ? ((body.read() ?? null) as Record<string, unknown> | null) : null;
  } catch {
    return null;
  }
}

/**
 * Listens for workers only.
 * @param route answers requests as on the port of the API
 * @throws Error with a sentence where the port cannot be had
 */
export async function listenForWorkers(
  route: (request: IncomingMessage, response: ServerResponse) => void,
  port: number,
  address: string,
): Promise<Server> {
  const server = createServer(route);
  await new Promise<void>((resolve, reject) => {
    server.once('error', ({ code, message }: NodeJS.ErrnoException) =>
      reject(
        new Error(`port ${port} of ${address} cannot be had (${code ?? message}): set JOB_REPORT_PORT to another`),
      ),
    );
    server.listen(port, address, resolve);
  });
  return server;
}
