/** Bytes of the log of each container that a reader has seen. */
export type LogCursor = ReadonlyMap<string, number>;

/** A line of a log. */
export interface LogLine {
  container: string;
  /** Without its end. */
  line: string;
  /** Where the log goes on behind it, in bytes. */
  end: number;
}

const CURSOR = /^[a-z-]+=\d{1,15}(,[a-z-]+=\d{1,15})*$/;

/** Reads a cursor as `formatCursor` writes it; null where it is none. */
export function parseCursor(text: string): LogCursor | null {
  if (!CURSOR.test(text)) return null;
  return new Map(
    text.split(',').map((entry) => {
      const [container, bytes] = entry.split('=') as [string, string];
      return [container, Number(bytes)];
    }),
  );
}

/** A cursor as text: `prepare=120,sshd=7`. */
export function formatCursor(cursor: LogCursor): string {
  return [...cursor].map(([container, bytes]) => `${container}=${bytes}`).join(',');
}

/**
 * The lines of a log. The last one may lack its end.
 * @param from where in the log the chunks begin, bytes
 */
export async function* linesOf(
  container: string,
  chunks: AsyncIterable<Buffer>,
  from: number,
): AsyncGenerator<LogLine> {
  let rest: Buffer = Buffer.alloc(0);
  let end = from;
  for await (const chunk of chunks) {
    rest = Buffer.concat([rest, chunk]);
    for (let stop = rest.indexOf('\n'); stop >= 0; stop = rest.indexOf('\n')) {
      end += stop + 1;
      yield { container, line: rest.toString('utf8', 0, stop), end };
      rest = rest.subarray(stop + 1);
    }
  }
  if (rest.length) yield { container, line: rest.toString(), end: end + rest.length };
}

/** What several sources yield, in the order in which it comes. */
export async function* merge<T>(sources: readonly AsyncGenerator<T>[]): AsyncGenerator<T> {
  const ask = (source: AsyncGenerator<T>) => source.next().then((result) => ({ source, result }));
  const asked = new Map(sources.map((source) => [source, ask(source)]));
  try {
    while (asked.size) {
      const { source, result } = await Promise.race(asked.values());
      if (result.done) asked.delete(source);
      else {
        asked.set(source, ask(source));
        yield result.value;
      }
    }
  } finally {
    for (const source of asked.keys()) void source.return(undefined);
  }
}
