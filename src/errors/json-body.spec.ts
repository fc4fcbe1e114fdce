import { JsonBody, nestingOf } from './json-body.js';
import type { Problem } from './problems.js';

const read = (content: string | Buffer, type = 'application/json') => new JsonBody(type, Buffer.from(content)).read();
const statusOf = (act: () => unknown): number => {
  try {
    act();
  } catch (error) {
    return (error as Problem).status;
  }
  return 200;
};

describe('JsonBody', () => {
  it.each(['application/json', 'APPLICATION/JSON', 'application/json; charset=latin-1', 'application/vnd.api+json'])(
    'reads %s',
    (type) => expect(read('\ufeff{"a":[1]}', type)).toEqual({ a: [1] }),
  );

  it('takes an empty body for none, whatever its type', () => expect(read('', 'text/plain')).toBeUndefined());

  it.each(['application/jsonp', 'text/plain', 'multipart/form-data; boundary=x', ''])('refuses the type %j', (type) =>
    expect(statusOf(() => read('{}', type))).toBe(415),
  );

  it.each(['{"a":', '   ', "{'a': 1}", '{} x', 'NaN', Buffer.from([0x22, 0xff, 0x22]), '['.repeat(100_000)])(
    'refuses what is no JSON',
    (content) => expect(statusOf(() => read(content))).toBe(400),
  );

  it('takes 64 levels and not 65', () => {
    expect(statusOf(() => read('['.repeat(64) + ']'.repeat(64)))).toBe(200);
    expect(statusOf(() => read('['.repeat(65) + ']'.repeat(65)))).toBe(400);
  });
});

describe('nestingOf', () => {
  it.each([
    ['1', 0],
    ['{"a":[{}]}', 3],
    ['[[],[]]', 2],
    ['"[[[["', 0],
    ['["\\"[", "\\\\"]', 1],
  ])('%s', (json, depth) => expect(nestingOf(json)).toBe(depth));
});
