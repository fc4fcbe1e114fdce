import { readFileSync } from 'node:fs';
import path from 'node:path';

/** A step that is no request: what the recording did to the server's surroundings. */
export interface SetupLine {
  name: string;
  setup:
    | { kind: 'start'; options: string[]; env: Record<string, string> }
    | { kind: 's3_put'; bucket: string; key: string; meta: Record<string, string>; body: RecordedContent }
    | { kind: 's3_delete'; bucket: string; key: string }
    | { kind: 'restart'; edit?: string }
    | { kind: 'wait'; seconds: number }
    | { kind: 'kube_control' | 'ssh_node' };
}

/** Content of an object: text, padded to a size where one is given, or base64. */
export type RecordedContent = { text: string; pad?: string; size?: number } | { b64: string };

/** An object of the store as a recording saw it. */
export interface RecordedObject {
  size: number;
  etag: string;
  meta: Record<string, string>;
  json?: unknown;
}

/** A request and what the original answered; without an answer the original failed. */
export interface RequestLine {
  name: string;
  request: {
    method: string;
    path: string;
    headers: Record<string, string>;
    body: string | null;
    body_b64?: string;
    body_gen?: string;
  };
  response:
    | { status: number; content_type: string; body: unknown; allow?: string[]; defect?: undefined }
    | { defect: true; status: number };
  s3?: { added?: Record<string, RecordedObject>; removed?: string[] };
}

export type Line = SetupLine | RequestLine;

export interface Scenario {
  name: string;
  lines: Line[];
}

/** Reads a recording. */
export function readScenario(name: string): Scenario {
  const text = readFileSync(path.join(import.meta.dirname, 'recordings', `${name}.jsonl`), 'utf8');
  return {
    name,
    lines: text
      .split('\n')
      .filter(Boolean)
      .map((line) => JSON.parse(line) as Line),
  };
}

/** The bytes that a setup line puts into the store. */
export function contentOf(body: RecordedContent): Buffer {
  if ('b64' in body) return Buffer.from(body.b64, 'base64');
  const text = Buffer.from(body.text);
  return body.pad ? Buffer.concat([text, Buffer.alloc(Math.max(0, body.size! - text.length), body.pad)]) : text;
}

/** The bytes of a request's body; undefined where it has none. */
export function bodyOf({ body, body_b64, body_gen }: RequestLine['request']): Buffer | undefined {
  if (body_b64 !== undefined) return Buffer.from(body_b64, 'base64');
  if (body_gen !== undefined) {
    const [, open, times, close] = /^'(.)'\*(\d+) \+ '(.)'\*\d+$/.exec(body_gen)!;
    return Buffer.from(open!.repeat(Number(times)) + close!.repeat(Number(times)));
  }
  return body === null ? undefined : Buffer.from(body);
}
