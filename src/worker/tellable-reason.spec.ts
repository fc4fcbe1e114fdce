import { textMistake } from '../errors/members.js';
import { clip, tellableReason } from './tellable-reason.js';

it.each([
  ['a sentence: with „quotes“, 雪 and 😀', 'a sentence: with „quotes“, 雪 and 😀'],
  ['a\0b', 'ab'],
  ['config.sh failed with: \u001B[1;31mbroken\u001B[0m', 'config.sh failed with: broken'],
  ['one\r\ntwo\tthree\n\nfour', 'one two three four'],
  ['half of a character: \uD83D.', 'half of a character: \uFFFD.'],
  ['a bell\u0007 and \u0085 one of C1', 'a bell and  one of C1'],
])('%j is told as %j', (text, expected) => {
  expect(tellableReason(text)).toBe(expected);
});

it.each(['x'.repeat(1 << 20), '😀'.repeat(8192), `x${'😀'.repeat(8192)}`, '\0'.repeat(9000), '\uD83D'.repeat(9000)])(
  'a reason becomes no longer than the server takes it',
  (text) => {
    const told = tellableReason(text);
    expect(told.length).toBeLessThanOrEqual(8192);
    expect(textMistake(told)).toBeNull();
  },
);

it.each([
  ['abc', 3, 'abc'],
  ['abcd', 3, 'abc…'],
  ['😀😀', 4, '😀😀'],
  ['😀😀', 3, '😀…'],
  ['a😀😀', 3, 'a😀…'],
])('%j, clipped to %j, is %j', (text, limit, expected) => {
  expect(clip(text, limit)).toBe(expected);
});
