import { createHash } from 'node:crypto';
import { problems } from './problems.js';

/** Deepest nesting of a body: a parser that recurses must never meet a hundred thousand brackets. */
const NESTING_LIMIT = 64;

/** JSON of every kind; the charset does not matter, since the text itself tells its encoding. */
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

  /** Tells two bodies apart without keeping them. */
  digest(): string {
    return createHash('sha256').update(this.content).digest('hex');
  }

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
    const encoding = encodingOf(this.content);
    try {
      return encoding.startsWith('utf-32') ? decodeUtf32(this.content, encoding) : decode(this.content, encoding);
    } catch {
      throw problems.malformedJson(`it is not ${encoding.toUpperCase()}`);
    }
  }
}

type Encoding = 'utf-8' | 'utf-16le' | 'utf-16be' | 'utf-32le' | 'utf-32be';

/**
 * The encoding of a JSON text. The first character of JSON is ASCII, so that the zeros around it tell the width and order of the code
 * units (RFC 4627 section 3). JSON is UTF-8 by now (RFC 8259), but clients of the original that send the others are understood there.
 */
function encodingOf(content: Buffer): Encoding {
  const zeros = [...content.subarray(0, 4)].map((byte) => (byte === 0 ? '0' : '1')).join('');
  if (content.length % 4 === 0 && (zeros === '0001' || content.readUInt32BE(0) === 0xfeff)) return 'utf-32be';
  if (content.length % 4 === 0 && (zeros === '1000' || content.readUInt32LE(0) === 0xfeff)) return 'utf-32le';
  if (content.length % 2) return 'utf-8';
  const mark = content.readUInt16BE(0);
  if (zeros.startsWith('01') || mark === 0xfeff) return 'utf-16be';
  return zeros.startsWith('10') || mark === 0xfffe ? 'utf-16le' : 'utf-8';
}

function decode(content: Buffer, encoding: Encoding): string {
  return new TextDecoder(encoding, { fatal: true }).decode(content);
}

/** No decoder of the platform knows UTF-32. */
function decodeUtf32(content: Buffer, encoding: Encoding): string {
  const read = (offset: number) =>
    encoding === 'utf-32le' ? content.readUInt32LE(offset) : content.readUInt32BE(offset);
  const points = Array.from({ length: content.length / 4 }, (_, index) => read(index * 4));
  // A piece at a time: a call takes only so many arguments.
  const pieces = Array.from({ length: Math.ceil(points.length / 1024) }, (_, index) =>
    String.fromCodePoint(...points.slice(index * 1024, (index + 1) * 1024)),
  );
  return pieces.join('').replace(/^\uFEFF/, '');
}
