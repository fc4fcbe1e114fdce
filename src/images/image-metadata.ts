import { textMistake } from '../errors/members.js';
import { type MemberErrors } from '../errors/problems.js';

/** Tags of an image. */
export type ImageMetadata = Record<string, string>;

/** One change of the tags of an image. */
export interface MetadataChange {
  operation: 'set' | 'remove';
  key: string;
  value: string;
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function partMistake(value: unknown): string | null {
  if (value === null) return 'Field may not be null.';
  return typeof value === 'string' ? textMistake(value) : 'Not a valid string.';
}

/** Null prototype: a tag may be named `__proto__`. */
function record<T>(entries: Iterable<readonly [string, T]>): Record<string, T> {
  const object = Object.create(null) as Record<string, T>;
  for (const [key, value] of entries) object[key] = value;
  return object;
}

/**
 * The tags of a new image. With a member called `key`, `{key, value}` is one pair and other members do not count, as the `cray` command
 * line sends it; otherwise the object is the tags.
 */
export function readMetadata(given: unknown): { metadata: ImageMetadata } | { errors: string[] | MemberErrors } {
  if (given === null) return { errors: ['Field may not be null.'] };
  if (!isObject(given)) return { errors: ['Not a valid mapping type.'] };
  const pairs: [unknown, unknown][] =
    'key' in given ? [[given['key'], given['value'] ?? (given['value'] === null ? null : '')]] : Object.entries(given);
  const errors: [string, MemberErrors][] = [];
  for (const [key, value] of pairs) {
    const keyMistake = partMistake(key);
    const valueMistake = partMistake(value);
    if (keyMistake) errors.push([String(typeof key === 'object' ? JSON.stringify(key) : key), { key: [keyMistake] }]);
    else if (valueMistake) errors.push([key as string, { value: [valueMistake] }]);
  }
  return errors.length ? { errors: record(errors) } : { metadata: record(pairs as [string, string][]) };
}

/** One change, as the `cray` command line and the boot service send it. */
export function readMetadataChange(given: unknown): { change: MetadataChange } | { errors: string[] | MemberErrors } {
  if (given === null) return { errors: ['Field may not be null.'] };
  if (!isObject(given)) return { errors: { _schema: ['Must be an object.'] } };
  const { operation, key, value = '', ...others } = given;
  const errors: MemberErrors = Object.create(null) as MemberErrors;
  if (operation !== 'set' && operation !== 'remove') errors['operation'] = ['Must be one of: set, remove.'];
  const keyMistake = key === undefined ? 'Missing data for required field.' : partMistake(key);
  if (keyMistake) errors['key'] = [keyMistake];
  const valueMistake = partMistake(value);
  if (valueMistake) errors['value'] = [valueMistake];
  for (const other of Object.keys(others)) errors[other] = ['Unknown field.'];
  return Object.keys(errors).length ? { errors } : { change: { operation, key, value } as MetadataChange };
}

/** The tags after a change. Setting overwrites; removing what is not there changes nothing. */
export function changeMetadata(metadata: ImageMetadata, change: MetadataChange): ImageMetadata {
  const rest = Object.entries(metadata).filter(([key]) => key !== change.key);
  return record(change.operation === 'set' ? [...rest, [change.key, change.value]] : rest);
}
