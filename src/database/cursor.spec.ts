import { readCursor, writeCursor } from './cursor.js';

const CURSOR = { created: '2018-11-21T17:19:07.830001', id: '4e78488d-4d92-4675-9d83-97adfc17cb19' };

it('reads what it wrote', () => expect(readCursor(writeCursor(CURSOR))).toEqual(CURSOR));

it.each(['', 'x', writeCursor({ ...CURSOR, id: "'" }), writeCursor({ ...CURSOR, created: 'now' })])(
  'takes nothing else: %j',
  (text) => expect(readCursor(text)).toBeNull(),
);
