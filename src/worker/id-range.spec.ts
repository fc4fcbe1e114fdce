import { shellIdRange } from './id-range.js';

describe('shellIdRange', () => {
  it('takes all ids above the first on a plain machine', () => {
    const { first, count } = shellIdRange('         0          0 4294967295\n');
    expect(first).toBe(300_000);
    expect(first + count).toBe(2 ** 32 - 1);
  });

  it('takes what a user namespace offers', () =>
    expect(shellIdRange('0 100000 1000000\n')).toEqual({ first: 300_000, count: 700_000 }));

  it('finds its place among several ranges', () =>
    expect(shellIdRange('0 1000 1\n1 100000 200000\n200001 500000 1000000\n').count).toBe(900_001));

  it.each(['0 0 1\n', '0 100000 65536\n', '0 100000 300001\n', ''])('refuses %j', (map) =>
    expect(() => shellIdRange(map)).toThrow(
      /run it outside of a user namespace, or give its container at least 365536/,
    ),
  );
});
