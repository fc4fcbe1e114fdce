import { withoutCredentials } from './without-credentials.js';

it.each([
  ['http://me:secret@host/a', 'http://host/a'],
  ['http://me:sec@ret@host/a@b', 'http://host/a@b'],
  ["['http://host', 'https://me:it's-secret@host']", "['http://host', 'https://host']"],
  ['http://me@[::1]:8080/a', 'http://[::1]:8080/a'],
  ['ftp://me:secret@host', 'ftp://host'],
  ['https://host/repo?secret', 'https://host/repo?…'],
  ['https://me:secret@host/repo?token=secret&amp;b=secret]', 'https://host/repo?…]'],
  ["addrepo 'http://[::1]/a?secret' name", "addrepo 'http://[::1]/a?…' name"],
  ['<uri>https://host/?a=secret</uri>', '<uri>https://host/?…</uri>'],
])('%s becomes %s', (text, expected) => {
  expect(withoutCredentials(text)).toBe(expected);
});

it.each([
  'mail@host, is it there?',
  'http://host/a is away: is me@host there?',
  'dir:///srv/repo?x',
  'http://host/@scope/b',
])('%s stays as it is', (text) => {
  expect(withoutCredentials(text)).toBe(text);
});
