import { hash } from 'node:crypto';
import type { NestFastifyApplication } from '@nestjs/platform-fastify';
import type { FastifyReply, FastifyRequest } from 'fastify';
import { isVersion3 } from './database/json.js';

/** Whether a header of a client names a tag (RFC 9110 section 13.1.2; tags are compared weakly). */
export function namesTag(header: string, tag: string): boolean {
  return header.trim() === '*' || header.split(',').some((each) => each.trim().replace(/^W\//, '') === tag);
}

/** Gives what version 3 answers to GET a tag, and sends nothing to a client that has it already. */
export function answerConditionally(app: NestFastifyApplication): void {
  app
    .getHttpAdapter()
    .getInstance()
    .addHook('onSend', (request, reply, payload, done) => done(null, tagAnswer(request, reply, payload)));
}

function tagAnswer(request: FastifyRequest, reply: FastifyReply, payload: unknown): unknown {
  const isTagged = request.method === 'GET' && reply.statusCode === 200 && isVersion3(request);
  if (!isTagged || typeof payload !== 'string') return payload;
  const tag = `"${hash('sha1', payload, 'base64')}"`;
  void reply.header('etag', tag);
  const known = request.headers['if-none-match'];
  if (known === undefined || !namesTag(known, tag)) return payload;
  void reply.code(304).removeHeader('content-type').removeHeader('content-length');
  return null;
}
