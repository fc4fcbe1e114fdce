import { formatCursor, linesOf, type LogLine, merge, parseCursor } from './log-lines.js';

async function* chunks(...texts: string[]): AsyncGenerator<Buffer> {
  for (const text of texts) yield Buffer.from(text, 'latin1');
}

async function all<T>(items: AsyncIterable<T>): Promise<T[]> {
  const list: T[] = [];
  for await (const item of items) list.push(item);
  return list;
}

const bytes = (text: string) => Buffer.from(text).toString('latin1');

describe('linesOf', () => {
  it.each<[string, string[], [string, number][]]>([
    ['nothing', [], []],
    [
      'whole lines',
      ['one\ntwo\n'],
      [
        ['one', 14],
        ['two', 18],
      ],
    ],
    [
      'lines in pieces',
      ['o', 'ne\nt', 'wo', '\n'],
      [
        ['one', 14],
        ['two', 18],
      ],
    ],
    [
      'a last line without an end',
      ['one\ntw'],
      [
        ['one', 14],
        ['tw', 16],
      ],
    ],
    [
      'empty lines',
      ['\n\n'],
      [
        ['', 11],
        ['', 12],
      ],
    ],
    ['characters in pieces', [bytes('日本\n').slice(0, 2), bytes('日本\n').slice(2)], [['日本', 17]]],
  ])('tells %s, and where the log goes on', async (_what, texts, expected) => {
    const lines = await all<LogLine>(linesOf('sshd', chunks(...texts), 10));
    expect(lines).toEqual(expected.map(([line, end]) => ({ container: 'sshd', line, end })));
  });
});

describe('a cursor', () => {
  it('is read as it is written', () => {
    const cursor = new Map([
      ['prepare', 12],
      ['buildenv-sidecar', 0],
    ]);
    expect(formatCursor(cursor)).toBe('prepare=12,buildenv-sidecar=0');
    expect(parseCursor(formatCursor(cursor))).toEqual(cursor);
  });

  it.each(['', 'x', 'x=', '=1', 'x=-1', 'x=1,', 'x=1e9', 'X=1', '12'])('is not %j', (text) =>
    expect(parseCursor(text)).toBeNull(),
  );
});

describe('merge', () => {
  it('hands on what comes first, first', async () => {
    let release = () => {};
    const released = new Promise<void>((resolve) => (release = resolve));
    async function* slow() {
      await released;
      yield 'slow';
    }
    async function* fast() {
      yield 'fast';
      release();
    }
    expect(await all(merge([slow(), fast()]))).toEqual(['fast', 'slow']);
  });

  it('ends its sources when nobody reads any more', async () => {
    let ended = false;
    async function* source() {
      try {
        for (;;) yield 1;
      } finally {
        ended = true;
      }
    }
    for await (const item of merge([source()])) if (item) break;
    await new Promise((resolve) => setImmediate(resolve));
    expect(ended).toBe(true);
  });

  it('fails where a source fails', async () => {
    async function* broken(): AsyncGenerator<number> {
      yield await Promise.reject<number>(new Error('broken'));
    }
    await expect(all(merge([broken()]))).rejects.toThrow('broken');
  });
});
