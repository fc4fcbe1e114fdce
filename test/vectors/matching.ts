const UUID = '[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}';
const PLACEHOLDER = /<(uuid|UUID):(\d+)>|<(datetime|datetime-sp|etag|sig|expires|host|s3-host|kube-host)>/g;

/** What placeholders without a number stand for. */
const PATTERNS: Record<string, string> = {
  datetime: '\\d{4}-\\d\\d-\\d\\dT\\d\\d:\\d\\d:\\d\\d\\.\\d{6}\\+00:00',
  'datetime-sp': '\\d{4}-\\d\\d-\\d\\d \\d\\d:\\d\\d:\\d\\d(?:\\.\\d+)?',
  etag: '[0-9a-f-]+',
};

/** An id that no record has: stands in for the id of a record that we, by design, did not make. */
export const NO_ID = 'ffffffff-ffff-4fff-8fff-ffffffffffff';

/** The ids that the placeholders of a scenario stand for. */
export class Bindings {
  constructor(private ids = new Map<string, string>()) {}

  copy(): Bindings {
    return new Bindings(new Map(this.ids));
  }

  adopt(other: Bindings): void {
    this.ids = other.ids;
  }

  find(number: string): string | undefined {
    return this.ids.get(number);
  }

  bind(number: string, id: string): void {
    this.ids.set(number, id);
  }

  /** Says that the record with this placeholder was never made. */
  forgo(text: string): void {
    for (const [, , number] of text.matchAll(PLACEHOLDER))
      if (number && !this.ids.has(number)) this.ids.set(number, NO_ID);
  }

  isForgone(text: unknown): boolean {
    return typeof text === 'string' && this.resolve(text).includes(NO_ID);
  }

  /** The text with ids in place of numbered placeholders. */
  resolve(text: string): string {
    return text.replace(PLACEHOLDER, (placeholder, kind?: string, number?: string) => {
      const id = number && this.ids.get(number);
      if (!id) return placeholder;
      return kind === 'UUID' ? id.toUpperCase() : id;
    });
  }

  /** Why a text is not the recorded one; null where it is. Binds what it meets first. */
  mismatch(expected: string, actual: unknown): string | null {
    if (typeof actual !== 'string') return `${JSON.stringify(expected)} is ${JSON.stringify(actual)}`;
    const numbers: string[] = [];
    const pattern = this.resolve(expected)
      .split(/(<[\w-]+(?::\d+)?>)/)
      .map((part, index) => (index % 2 ? this.patternOf(part, numbers) : escape(part)))
      .join('');
    const match = new RegExp(`^${pattern}$`, 's').exec(actual);
    if (!match) return `${JSON.stringify(this.resolve(expected))} is ${JSON.stringify(actual)}`;
    numbers.forEach((number, index) => this.bind(number, match[index + 1]!));
    return null;
  }

  private patternOf(placeholder: string, numbers: string[]): string {
    const [, , number, kind] = [...placeholder.matchAll(PLACEHOLDER)][0] ?? [];
    if (kind) return PATTERNS[kind] ?? '.+?';
    if (!number) return escape(placeholder);
    numbers.push(number);
    return `(${UUID})`;
  }
}

const escape = (text: string) => text.replace(/[.*+?^${}()|[\]\\]/g, '\\$&');
const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

export interface MatchOptions {
  /** Whether objects may have members that the recording has not. */
  extraMembers: boolean;
  /** Ids of records that, by design, only we have. */
  ours: ReadonlySet<string>;
}

/** Why a JSON value is not the recorded one; null where it is. The order of members and of list items does not matter. */
export function mismatch(
  expected: unknown,
  actual: unknown,
  bindings: Bindings,
  options: MatchOptions,
  place = '',
): string | null {
  if (typeof expected === 'string') return prefixed(place, bindings.mismatch(expected, actual));
  if (Array.isArray(expected)) return listMismatch(expected, actual, bindings, options, place);
  if (isObject(expected)) return objectMismatch(expected, actual, bindings, options, place);
  return expected === actual ? null : `${place}: ${JSON.stringify(expected)} is ${JSON.stringify(actual)}`;
}

const prefixed = (place: string, reason: string | null) => reason && `${place}: ${reason}`;

function objectMismatch(
  expected: Record<string, unknown>,
  actual: unknown,
  bindings: Bindings,
  options: MatchOptions,
  place: string,
): string | null {
  if (!isObject(actual)) return `${place}: ${JSON.stringify(expected)} is ${JSON.stringify(actual)}`;
  for (const [member, value] of Object.entries(expected)) {
    if (!(member in actual)) return `${place}.${member} is missing`;
    const reason = mismatch(value, actual[member], bindings, options, `${place}.${member}`);
    if (reason) return reason;
  }
  const extra = Object.keys(actual).filter((member) => !(member in expected));
  return extra.length && !options.extraMembers ? `${place} has ${extra.join(', ')}` : null;
}

function listMismatch(
  expected: unknown[],
  actual: unknown,
  bindings: Bindings,
  options: MatchOptions,
  place: string,
): string | null {
  if (!Array.isArray(actual)) return `${place} is no list`;
  const wanted = expected.filter((item) => !(isObject(item) && bindings.isForgone(item['id'])));
  const rest: unknown[] = actual.filter((item) => !(isObject(item) && options.ours.has(String(item['id']))));
  if (wanted.length !== rest.length) return `${place} has ${rest.length} items in place of ${wanted.length}`;
  for (const [index, item] of wanted.entries()) {
    const found = rest.findIndex((candidate) => {
      const trial = bindings.copy();
      const fits = mismatch(item, candidate, trial, options) === null;
      if (fits) bindings.adopt(trial);
      return fits;
    });
    if (found < 0) return `${place}[${index}] is not there: ${bindings.resolve(JSON.stringify(item))}`;
    rest.splice(found, 1);
  }
  return null;
}

/** Why two `errors` do not name the same members; the messages do not matter. */
export function errorsMismatch(expected: unknown, actual: unknown, place = 'errors'): string | null {
  const namesMembers = isObject(expected);
  if (namesMembers !== isObject(actual)) return `${place}: ${JSON.stringify(expected)} is ${JSON.stringify(actual)}`;
  if (!namesMembers) return null;
  const [wanted, got] = [expected, actual as Record<string, unknown>].map((errors) => Object.keys(errors).toSorted());
  if (wanted!.join() !== got!.join()) return `${place} names ${got!.join()} in place of ${wanted!.join()}`;
  for (const member of wanted!) {
    const reason = errorsMismatch(expected[member], (actual as Record<string, unknown>)[member], `${place}.${member}`);
    if (reason) return reason;
  }
  return null;
}
