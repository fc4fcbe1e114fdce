/** Writes one fact to the job's log. Facts never hold urls, keys or secrets. */
export type Log = (message: string, facts?: Readonly<Record<string, unknown>>) => void;

const escape = (character: string) => `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`;

/** A text may quote what a user or an image chose: control characters must not reach a terminal that shows the log. */
function printable(text: string): string {
  return text.replace(/\p{Cc}/gu, escape);
}

/** A value as it stands in a line: texts that could be mistaken for something else are quoted, so that a line stays one line. */
function format(value: unknown): string {
  if (typeof value === 'string' && /^[\w./:@+-]+$/.test(value)) return value;
  return printable(JSON.stringify(value) ?? String(value));
}

/** A log of readable lines: time in UTC, message, facts as `name=value`. */
export function lineLog(write: (line: string) => void, now: () => Date = () => new Date()): Log {
  return (message, facts = {}) => {
    const known = Object.entries(facts).filter(([, value]) => value !== undefined);
    const words = [
      now().toISOString(),
      printable(message),
      ...known.map(([name, value]) => `${name}=${format(value)}`),
    ];
    write(`${words.join(' ')}\n`);
  };
}
