import { problems } from './problems.js';

/** Deepest nesting of a body: a parser that recurses must never meet a hundred thousand brackets. */
const NESTING_LIMIT = 64;

/** JSON of every kind; the charset does not matter, since JSON is UTF-8 (RFC 8259 section 8.1). */
const JSON_TYPE = /^application\/(?:json|[\w.+-]+\+json)\s*(?:;|$)/i;

/** How deep brackets are nested in a JSON text; brackets inside of strings do not count. */
export function nestingOf(json: string): number {
  let depth = 0;
  let deepest = 0;
  for (const [token] of json.matchAll(/"(?:[^"\\]|\\.)*"|[[{\]}]/gs)) {
    if (token === '[' || token === '{') deepest = Math.max(deepest, ++depth);
    else if (token === ']' || token === '}') depth--;
  }
  return deepest;
}

/** A body as it arrived. It is read when it is needed, so that what a request asks for is looked at before what it says. */
export class JsonBody {
  constructor(
    private readonly contentType: string | undefined,
    private readonly content: Buffer,
  ) {}

  /**
   * The value; undefined where the body is empty.
   * @throws Problem (400, 415)
   */
  read(): unknown {
    if (!this.content.length) return undefined;
    if (!JSON_TYPE.test(this.contentType ?? '')) throw problems.unsupportedMediaType();
    const text = this.text();
    if (nestingOf(text) > NESTING_LIMIT)
      throw problems.malformedJson(`it is nested deeper than ${NESTING_LIMIT} levels`);
    try {
      return JSON.parse(text) as unknown;
    } catch (error) {
      throw problems.malformedJson((error as Error).message);
    }
  }

  private text(): string {
    try {
      return new TextDecoder('utf-8', { fatal: true }).decode(this.content);
    } catch {
      throw problems.malformedJson('it is not UTF-8');
    }
  }
}
