import { namesTag } from './conditional-requests.js';

it.each([
  ['"a"', true],
  ['W/"a"', true],
  ['"b", W/"a" ,"c"', true],
  [' * ', true],
  ['"b"', false],
  ['a', false],
  ['', false],
])('If-None-Match: %s', (header, names) => expect(namesTag(header, '"a"')).toBe(names));
