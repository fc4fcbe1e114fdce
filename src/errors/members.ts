import { isIPv6 } from 'node:net';
import { applyDecorators } from '@nestjs/common';
import { plainToInstance, Transform } from 'class-transformer';
import { registerDecorator, ValidateIf, ValidateNested } from 'class-validator';
import { V3_ONLY } from '../database/wire.js';
import { publicKeyMistake } from '../protocol/openssh-key.js';

/** Decorators that check one member of a body, with the messages and the leniency that clients of the original rely on. */

/** The member may be left out. Unlike class-validator's IsOptional it does not let null through. */
export function Optional(): PropertyDecorator {
  return ValidateIf((_object, value) => value !== undefined);
}

/** Registers one check whose message depends on the value. */
function check(name: string, mistake: (value: unknown) => string | null): PropertyDecorator {
  return (target, property) =>
    registerDecorator({
      name,
      target: target.constructor,
      propertyName: property as string,
      options: {},
      validator: {
        validate: (value: unknown) => mistake(value) === null,
        defaultMessage: (args) => mistake(args?.value) ?? '',
      },
    });
}

const missing = (value: unknown): string | null => {
  if (value === undefined) return 'Missing data for required field.';
  return value === null ? 'Field may not be null.' : null;
};

/** Longest name of anything. */
export const NAME_LIMIT = 1024;

/** Why PostgreSQL cannot keep a text; null where it can. */
export function textMistake(text: string): string | null {
  if (text.includes('\0')) return 'Must not contain NUL characters.';
  return text.isWellFormed() ? null : 'Must be valid Unicode text.';
}

/** Text that PostgreSQL can keep. `blank` says whether it may be empty. */
export function Text({
  blank = false,
  limit = NAME_LIMIT,
}: { blank?: boolean; limit?: number } = {}): PropertyDecorator {
  return check('text', (value) => {
    const nothing = missing(value);
    if (nothing) return nothing;
    if (typeof value !== 'string') return 'Not a valid string.';
    if (!blank && value === '') return 'Must not be blank.';
    return textMistake(value) ?? (value.length > limit ? `Must not be longer than ${limit} characters.` : null);
  });
}

/** One of a list of texts. */
export function OneOf(values: readonly string[]): PropertyDecorator {
  return check('oneOf', (value) => {
    if (value === undefined || value === null) return missing(value);
    return values.includes(value as string) ? null : `Must be one of: ${values.join(', ')}.`;
  });
}

const UUID_HEX = /^[0-9a-f]{32}$/;

/** A UUID in any of the spellings that are taken, in its canonical one; null for anything else. */
export function canonicalUuid(value: unknown): string | null {
  if (typeof value !== 'string') return null;
  const hex = value
    .toLowerCase()
    .replace(/^urn:uuid:/, '')
    .replace(/^\{(.*)\}$/, '$1')
    .replaceAll('-', '');
  return UUID_HEX.test(hex) ? hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5') : null;
}

/** A UUID in any case, with or without dashes, braces or `urn:uuid:`; read into lower case with dashes. */
export function Uuid(): PropertyDecorator {
  return applyDecorators(
    Transform(({ value }: { value: unknown }) => canonicalUuid(value) ?? value),
    check('uuid', (value) => missing(value) ?? (canonicalUuid(value) === value ? null : 'Not a valid UUID.')),
  ) as PropertyDecorator;
}

const TRUE = new Set<unknown>([
  't',
  'T',
  'true',
  'True',
  'TRUE',
  'on',
  'On',
  'ON',
  'y',
  'Y',
  'yes',
  'Yes',
  'YES',
  '1',
  1,
  true,
]);
const FALSE = new Set<unknown>([
  'f',
  'F',
  'false',
  'False',
  'FALSE',
  'off',
  'Off',
  'OFF',
  'n',
  'N',
  'no',
  'No',
  'NO',
  '0',
  0,
  false,
]);

/** A boolean, or one of the words for it. */
export function Bool(): PropertyDecorator {
  return applyDecorators(
    Transform(({ value }: { value: unknown }) => (TRUE.has(value) ? true : FALSE.has(value) ? false : value)),
    check('bool', (value) => missing(value) ?? (typeof value === 'boolean' ? null : 'Not a valid boolean.')),
  ) as PropertyDecorator;
}

/** Largest number that a PostgreSQL integer keeps. */
const INTEGER_LIMIT = 2_147_483_647;

/** A whole number from 1, or digits that spell one. */
export function PositiveInteger({ limit = INTEGER_LIMIT } = {}): PropertyDecorator {
  return applyDecorators(
    Transform(({ value }: { value: unknown }) =>
      typeof value === 'string' && /^\s*\+?\d+\s*$/.test(value) ? Number(value) : value,
    ),
    check('positiveInteger', (value) => {
      const nothing = missing(value);
      if (nothing) return nothing;
      if (typeof value !== 'number' || !Number.isInteger(value)) return 'Not a valid integer.';
      if (value < 1) return 'Must be greater than or equal to 1.';
      return value > limit ? `Must be at most ${limit}.` : null;
    }),
  ) as PropertyDecorator;
}

const TIME =
  /^(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d(?::\d\d)?)(\.\d{1,9})?(Z|[ +-]?(?:0\d|1[0-4])(?::?[0-5]\d)?| [+-](?:0\d|1[0-4])(?::?[0-5]\d)?)?$/i;

/**
 * A time as PostgreSQL reads it, all digits kept; null where it is none. One without an offset is UTC: so the original means it. A blank
 * before the offset is the plus that a client did not escape in a query.
 */
export function canonicalTime(value: unknown): string | null {
  const [, day, clock, fraction = '', offset = 'Z'] = (typeof value === 'string' && TIME.exec(value)) || [];
  if (!day || !clock || !isMoment(day, clock)) return null;
  return `${day}T${clock}${fraction}${offset
    .toUpperCase()
    .replace(/^ (?=\d)/, '+')
    .trim()}`;
}

/** Whether there is such a day and such a time of day. PostgreSQL knows no year 0. */
function isMoment(day: string, clock: string): boolean {
  const milliseconds = Date.parse(`${day}T${clock}Z`);
  return !Number.isNaN(milliseconds) && !day.startsWith('0000') && new Date(milliseconds).toISOString().startsWith(day);
}

/** A time with or without an offset (RFC 3339). */
export function Timestamp(): PropertyDecorator {
  return applyDecorators(
    Transform(({ value }: { value: unknown }) => canonicalTime(value) ?? value),
    check('timestamp', (value) => {
      const isTime = canonicalTime(value) === value;
      return missing(value) ?? (isTime ? null : 'Must be a time, as 2026-11-23T12:00:00Z.');
    }),
  ) as PropertyDecorator;
}

/** Longest public key line, characters: an RSA key of 16,384 bits with options. */
const KEY_LIMIT = 16_384;

/** One OpenSSH public key line. */
export function PublicKeyLine(): PropertyDecorator {
  return check('publicKeyLine', (value) => {
    const nothing = missing(value);
    if (nothing) return nothing;
    if (typeof value !== 'string') return 'Not a valid string.';
    if (value === '') return 'Must not be blank.';
    if (value.length > KEY_LIMIT) return `Must not be longer than ${KEY_LIMIT} characters.`;
    return textMistake(value) ?? publicKeyMistake(value);
  });
}

/** Names of DNS (RFC 1123), of which xnames are some, and addresses. */
const HOST_NAME = /^[a-z0-9_](?:[a-z0-9_.:-]{0,251}[a-z0-9])?$/i;

/** A host name, an xname or an address; without a user, a port or a path. */
export function HostName(): PropertyDecorator {
  return check('hostName', (value) => {
    const nothing = missing(value);
    if (nothing) return nothing;
    if (typeof value !== 'string') return 'Not a valid string.';
    if (value === '') return 'Must not be blank.';
    const isHost = HOST_NAME.test(value) && (!value.includes(':') || isIPv6(value));
    return isHost ? null : 'Must be a host name or an xname, without user, port or path.';
  });
}

/** Whether PostgreSQL can keep a value, and class-transformer can tell it again. */
function isPlain(value: unknown): boolean {
  if (typeof value === 'string') return textMistake(value) === null;
  if (typeof value !== 'object' || value === null) return true;
  return Object.entries(value).every(([name, member]) => !isReserved(name) && isPlain(name) && isPlain(member));
}

/** A value of a shape that is described in words; absent is fine. */
export function Shaped(shape: string, is: (value: unknown) => boolean): PropertyDecorator {
  return applyDecorators(
    Optional(),
    check('shaped', (value) => {
      const fits = (() => {
        try {
          return is(value) && isPlain(value);
        } catch {
          return false;
        }
      })();
      return fits ? null : `Must be ${shape}.`;
    }),
  ) as PropertyDecorator;
}

/** A list of objects of a class, or absent, or null where `nullable` says so. What is no object is reported in its place. */
export function ItemsOf(type: new () => object, { nullable = true } = {}): PropertyDecorator {
  return applyDecorators(
    ValidateIf((_object, value) => value !== undefined && !(nullable && value === null)),
    check('list', (value) => {
      if (value === null) return 'Field may not be null.';
      return Array.isArray(value) ? null : 'Not a valid list.';
    }),
    Transform(
      ({ value }: { value: unknown }) => {
        const list = opened(value);
        return Array.isArray(list) ? list.map((item) => readItem(type, item)) : list;
      },
      {
        toClassOnly: true,
      },
    ),
    ValidateNested({ each: true }),
  ) as PropertyDecorator;
}

/** An object of a class; absent is fine, and so is null where `nullable` says so. What is no object is reported as a whole. */
export function Nested(type: new () => object, { nullable = false } = {}): PropertyDecorator {
  return applyDecorators(
    ValidateIf((_object, value) => value !== undefined && !(nullable && value === null)),
    check('notNull', (value) => (value === null ? 'Field may not be null.' : null)),
    Transform(
      ({ value }: { value: unknown }) =>
        value === undefined || value === null ? value : readItem(type, opened(value)),
      { toClassOnly: true },
    ),
    ValidateNested(),
  ) as PropertyDecorator;
}

/** Stands in for an item that is no object, so that it is refused in its own place. */
class NoObject {
  @check('object', (value) => (value === null ? 'Field may not be null.' : 'Must be an object.'))
  readonly _schema: unknown;

  constructor(value: unknown) {
    // oxlint-disable-next-line no-underscore-dangle -- the name that the original gives to what is wrong with a whole object
    this._schema = value;
  }
}

function readItem(type: new () => object, item: unknown): object {
  const isObject = typeof item === 'object' && item !== null && !Array.isArray(item);
  return isObject ? readMembers(type, item) : new NoObject(item);
}

/**
 * Whether a member of this name cannot be told from what every object has, or makes it one that is waited for. No class has one, and neither
 * class-transformer nor class-validator takes them for what they are.
 */
export function isReserved(name: string): boolean {
  return name === 'then' || name in Object.prototype;
}

/**
 * An instance of a class with the members of an object, as its decorators read them. What is nested is kept from class-transformer: tags may be
 * named anything, `constructor` and `__proto__` among it.
 */
export function readMembers<T extends object>(type: new () => T, given: object): T {
  const members = Object.entries(given).filter(([name]) => !isReserved(name));
  const sealed = members.map(([name, value]: [string, unknown]) => [
    name,
    typeof value === 'object' && value !== null ? () => value : value,
  ]);
  const instance = plainToInstance(type, Object.fromEntries(sealed), { groups: [V3_ONLY] }) as Record<string, unknown>;
  for (const [name, value] of Object.entries(instance)) instance[name] = opened(value);
  return instance as T;
}

/** The value that `readMembers` has sealed; any other as it is. */
function opened(value: unknown): unknown {
  return typeof value === 'function' ? (value as () => unknown)() : value;
}
