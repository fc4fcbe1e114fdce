import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { promisify } from 'node:util';
import fc from 'fast-check';
import { command, System } from '../support/system.js';

const run = promisify(execFile);

/** Pinned, so that a new release does not fail a change that has nothing to do with it. */
const SCHEMATHESIS = 'schemathesis==4.32.5';
const VENV = path.join(tmpdir(), `ims-${SCHEMATHESIS.replace('==', '-')}`);

let system: System;
let operations: { method: string; path: string; body: boolean }[];

beforeAll(async () => {
  system = await System.start();
  const document = (await (await fetch(`${system.url}/docs/json`)).json()) as {
    paths: Record<string, Record<string, { requestBody?: object }>>;
  };
  operations = Object.entries(document.paths).flatMap(([where, methods]) =>
    Object.entries(methods).map(([method, { requestBody }]) => ({
      method: method.toUpperCase(),
      path: where,
      body: requestBody !== undefined,
    })),
  );
}, 60_000);
afterAll(() => system.stop());

/** Where the tool can be installed from; null where that is out of reach. */
async function installSchemathesis(): Promise<string | null> {
  const program = path.join(VENV, 'bin/schemathesis');
  if (existsSync(program)) return program;
  try {
    await run('python3', ['-m', 'venv', VENV]);
    await run(path.join(VENV, 'bin/pip'), ['install', '--quiet', SCHEMATHESIS], { timeout: 120_000 });
    return program;
  } catch {
    return null;
  }
}

it('answers what the document says, whatever is sent (schemathesis)', async () => {
  const schemathesis = await installSchemathesis();
  if (!schemathesis) return process.stdout.write('schemathesis cannot be installed from here: fast-check has to do\n');
  const checks = 'not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance';
  const { code, stdout } = await command(
    schemathesis,
    ['run', `${system.url}/docs/json`, '--url', system.url, '--max-examples', '40', '--checks', checks]
      // Streams end when their client goes.
      .concat(['--phases', 'examples,coverage,fuzzing', '--exclude-path-regex', 'events|logs', '--no-color']),
    // It keeps a cache where it runs.
    { timeout: 240_000, cwd: system.directory },
  );
  expect(`${code} ${code === 0 ? '' : stdout}`).toBe('0 ');
  return undefined;
}, 400_000);

const IDS = fc.oneof(fc.uuid(), fc.string(), fc.constantFrom('%00', '..', '%2e%2e', 'é', '1'.repeat(5000)));
const VERSIONS = fc.constantFrom('', '/v2', '/v3', '/apis/ims', '/apis/ims/v3');
const BODIES = fc.oneof(
  fc.json(),
  fc.string(),
  fc.json({ maxDepth: 10 }),
  fc.constantFrom('[[[[', '{"name":"\\u0000"}'),
);
const TYPES = fc.constantFrom(
  'application/json',
  'application/merge-patch+json',
  'text/plain',
  'application/json; charset=x',
);

it('answers nonsense with problems, never with an error of its own (fast-check)', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.nat(),
      VERSIONS,
      IDS,
      BODIES,
      TYPES,
      fc.dictionary(fc.string({ maxLength: 10 }), fc.string({ maxLength: 20 })),
      async (index, version, id, body, type, query) => {
        const operation = operations[index % operations.length]!;
        const where = operation.path.replace(/^\/v3/, version).replace('{id}', encodeURIComponent(id.toWellFormed()));
        const response = await fetch(`${system.url}${where}?${new URLSearchParams(query).toString()}`, {
          method: operation.method,
          ...(operation.method !== 'GET' && { headers: { 'content-type': type }, body }),
        });
        const answer = await response.text();
        expect(response.status).toBeLessThan(500);
        if (response.status < 400) return;
        expect(response.headers.get('content-type')).toContain('application/problem+json');
        expect(JSON.parse(answer)).toMatchObject({
          status: response.status,
          title: expect.any(String),
          detail: expect.any(String),
        });
      },
    ),
    { numRuns: 1500 },
  );
}, 120_000);
