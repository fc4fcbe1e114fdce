import fastify from 'fastify';
import { randomUUID } from 'node:crypto';
import pg from 'pg';

/** The same queries as the service's, on nothing but Fastify and pg: what the rest of the service is measured against. */

const COLUMNS = `id, to_char(created AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"+00:00"') AS created, name, link, arch, metadata, job_id`;
const JSON_TYPE = 'application/json; charset=utf-8';

const pool = new pg.Pool({ connectionString: process.argv[2], max: 10 });
const app = fastify();

async function json(sql: string, parameters: unknown[]): Promise<string> {
  const { rows } = await pool.query<{ json: string }>(sql, parameters);
  return rows[0]!.json;
}

app.get('/v3/images', (_request, reply) =>
  json(
    `SELECT json_agg(r)::text AS json FROM (SELECT ${COLUMNS} FROM images WHERE deleted IS NULL ORDER BY created, id) r`,
    [],
  ).then((text) => reply.type(JSON_TYPE).send(text)),
);

app.get<{ Params: { id: string } }>('/v3/images/:id', (request, reply) =>
  json(`SELECT row_to_json(r)::text AS json FROM (SELECT ${COLUMNS} FROM images WHERE id = $1 AND deleted IS NULL) r`, [
    request.params.id,
  ]).then((text) => reply.type(JSON_TYPE).send(text)),
);

app.post<{ Body: { name: string } }>('/v3/images', (request, reply) =>
  json(
    `WITH written AS (INSERT INTO images (id, created, name, arch, metadata) VALUES ($1, now(), $2, 'x86_64', '{}') RETURNING *)
     SELECT row_to_json(r)::text AS json FROM (SELECT ${COLUMNS} FROM written) r`,
    [randomUUID(), request.body.name],
  ).then((text) => reply.code(201).type(JSON_TYPE).send(text)),
);

process.stdout.write(`${await app.listen({ port: 0, host: '127.0.0.1' })}\n`);
