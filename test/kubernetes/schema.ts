import schema from './schema.json' with { type: 'json' };

/** A type: a scalar, the name of another type, a list of one, or a map to one. */
type Type = string | [Type] | { '*': Type };

const TYPES = schema.types as unknown as Record<string, Record<string, Type>>;
const SCALARS: Record<string, (value: unknown) => boolean> = {
  string: (value) => typeof value === 'string',
  integer: Number.isInteger,
  boolean: (value) => typeof value === 'boolean',
  quantity: (value) => typeof value === 'string' && /^\d+(\.\d+)?(m|[KMGT]i?)?$/.test(value),
  any: () => true,
};

/**
 * What an object has that Kubernetes does not know or takes otherwise, each with its place. `schema.json` is cut from the OpenAPI document of
 * the API server that `test:cluster` runs against: names of types, their members, and the types of these.
 */
export function strangersIn(object: { kind?: string }): string[] {
  const root = (schema.roots as Record<string, string>)[object.kind!];
  if (!root) throw new Error(`the schema has no ${object.kind}`);
  return check(object, root, '');
}

function check(value: unknown, type: Type, at: string): string[] {
  if (Array.isArray(type))
    return Array.isArray(value)
      ? value.flatMap((item, index) => check(item, type[0], `${at}/${index}`))
      : [`${at}: no list`];
  if (typeof type === 'object')
    return Object.entries(value as object).flatMap(([name, item]) => check(item, type['*'], `${at}/${name}`));
  if (SCALARS[type]) return SCALARS[type](value) ? [] : [`${at}: not ${type}`];
  return Object.entries(value as object).flatMap(([name, member]) =>
    TYPES[type]![name] ? check(member, TYPES[type]![name], `${at}/${name}`) : [`${at}/${name}: unknown`],
  );
}
