import { Readable } from 'node:stream';
import { Injectable, StreamableFile } from '@nestjs/common';
import type { FastifyReply, FastifyRequest } from 'fastify';
import { problems } from '../errors/problems.js';
import type { JobEvent } from './job-event.entity.js';
import { JobEvents } from './job-events.js';
import { JobLogs } from './job-logs.js';
import type { LogsQuery } from './job-streams.dto.js';
import type { Job } from './job.entity.js';
import { JobsService } from './jobs.service.js';
import { containersOf } from './launcher/container-names.js';
import { formatCursor, linesOf, type LogCursor, merge, parseCursor } from './log-lines.js';
import { OpenStreams } from './open-streams.js';
import { type ServerSentEvent, serverSentEvents } from './server-sent-events.js';
import { instanceToPlain } from 'class-transformer';

const EVENT_STREAM = 'text/event-stream';
const TEXT = 'text/plain; charset=utf-8';

/** What jobs print and what happens to them, at once or as it comes. */
@Injectable()
export class JobStreams {
  constructor(
    private readonly jobs: JobsService,
    private readonly logs: JobLogs,
    private readonly jobEvents: JobEvents,
    private readonly openStreams: OpenStreams,
  ) {}

  /** The events of a job: a list, or a stream for who accepts server-sent events. */
  async events(id: string, reply: FastifyReply): Promise<JobEvent[] | StreamableFile> {
    await this.jobs.get(id);
    if (!wantsEvents(reply.request)) return this.jobEvents.list(id);
    const after = lastEventId(reply.request) ?? '0';
    if (!/^\d{1,18}$/.test(after)) throw problems.badQuery('Last-Event-ID: must be the id of an event');
    return eventStream(reply, asEvents(this.jobEvents.follow(id, after, this.openStreams.track(reply))));
  }

  /** The log of one container as it is, or of all with the container before each line, or server-sent events of lines. */
  async log(id: string, query: LogsQuery, reply: FastifyReply): Promise<StreamableFile> {
    const job = await this.jobs.get(id);
    const containers = chosenContainers(job, query.container);
    const cursor = chosenCursor(containers, lastEventId(reply.request) ?? query.from);
    const signal = query.follow ? this.openStreams.track(reply) : null;
    const readable = signal ? once(() => this.jobs.whenLaunched(job, signal)) : async () => job;
    const read = (container: string) => this.readLog(readable, container, cursor.get(container) ?? 0, signal);
    if (query.container && !wantsEvents(reply.request)) return textStream(read(query.container));
    const sources = containers.map((container) => linesOf(container, read(container), cursor.get(container) ?? 0));
    const lines = signal ? merge(sources) : inTurn(sources);
    if (!wantsEvents(reply.request)) return textStream(prefixed(lines));
    return eventStream(reply, asLineEvents(lines, cursor));
  }

  /** Before its launch there is nothing of a job that could be followed. */
  private async *readLog(
    readable: () => Promise<Job>,
    container: string,
    from: number,
    signal: AbortSignal | null,
  ): AsyncGenerator<Buffer> {
    yield* this.logs.read(await readable(), container, from, signal);
  }
}

/** A function that is called the first time only; later callers share what came of it. */
function once<T>(call: () => Promise<T>): () => Promise<T> {
  let result: Promise<T> | undefined;
  return () => (result ??= call());
}

function wantsEvents({ headers }: FastifyRequest): boolean {
  return headers.accept?.includes(EVENT_STREAM) ?? false;
}

function lastEventId({ headers }: FastifyRequest): string | undefined {
  const id = headers['last-event-id'];
  return typeof id === 'string' && id ? id : undefined;
}

function chosenContainers(job: Job, container: string | undefined): string[] {
  const all = containersOf(job);
  if (container && !all.includes(container))
    throw problems.badQuery(`container: this job has ${all.join(', ') || 'none that print a log'}`);
  return container ? [container] : all;
}

function chosenCursor(containers: readonly string[], text: string | undefined): LogCursor {
  if (text === undefined) return new Map();
  if (containers.length === 1 && /^\d{1,15}$/.test(text)) return new Map([[containers[0]!, Number(text)]]);
  const cursor = parseCursor(text);
  if (!cursor) throw problems.badQuery('from: must be a number of bytes with a container, or the id of the last event');
  return cursor;
}

function textStream(content: AsyncIterable<Buffer | string>): StreamableFile {
  return new StreamableFile(Readable.from(content, { objectMode: false }), { type: TEXT });
}

function eventStream(reply: FastifyReply, events: AsyncGenerator<ServerSentEvent>): StreamableFile {
  // Proxies hold answers back to compress or to buffer them, unless they are told not to.
  void reply.headers({ 'Cache-Control': 'no-cache, no-transform', 'X-Accel-Buffering': 'no' });
  return new StreamableFile(Readable.from(serverSentEvents(events), { objectMode: false }), { type: EVENT_STREAM });
}

async function* asEvents(events: AsyncIterable<JobEvent>): AsyncGenerator<ServerSentEvent> {
  for await (const event of events) yield { id: event.id, event: 'job', data: instanceToPlain(event) };
}

async function* asLineEvents(
  lines: AsyncIterable<{ container: string; line: string; end: number }>,
  from: LogCursor,
): AsyncGenerator<ServerSentEvent> {
  const cursor = new Map(from);
  for await (const { container, line, end } of lines) {
    cursor.set(container, end);
    yield { id: formatCursor(cursor), event: 'log', data: { container, line } };
  }
}

async function* inTurn<T>(sources: readonly AsyncIterable<T>[]): AsyncGenerator<T> {
  for (const source of sources) yield* source;
}

async function* prefixed(lines: AsyncIterable<{ container: string; line: string }>): AsyncGenerator<string> {
  for await (const { container, line } of lines) yield `${container} | ${line}\n`;
}
