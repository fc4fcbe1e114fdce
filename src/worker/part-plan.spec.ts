import fc from 'fast-check';
import { type CopiedRange, planParts } from './part-plan.js';

const PART = 8;

/** Ranges as packers make them: one after the other behind a header. */
const ranges = fc
  .record({
    header: fc.nat(20),
    lengths: fc.array(fc.record({ gap: fc.nat(3), length: fc.integer({ min: 1, max: 90 }) })),
  })
  .map(({ header, lengths }) => {
    const copied: CopiedRange[] = [];
    let [start, source] = [header + 1, 5];
    for (const { gap, length } of lengths) {
      copied.push({ start, source: source + gap, length });
      [start, source] = [start + length, source + gap + length];
    }
    return copied;
  });

it('covers the beginning without a gap, by parts of a size that stores take', () => {
  fc.assert(
    fc.property(ranges, (copied) => {
      const parts = planParts(copied, PART);
      let position = 0;
      for (const { start, end } of parts) {
        expect(start).toBe(position);
        expect(end - start + 1).toBeGreaterThanOrEqual(PART);
        expect(end - start + 1).toBeLessThan(4 * PART);
        position = end + 1;
      }
    }),
  );
});

it('copies nothing but what stands in the source at that place, and never the first part', () => {
  fc.assert(
    fc.property(ranges, (copied) => {
      const parts = planParts(copied, PART);
      for (const { start, end, source } of parts) {
        if (source === null) continue;
        const range = copied.find((one) => one.start <= start && end < one.start + one.length)!;
        expect(source).toBe(range.source + (start - range.start));
      }
      expect(parts[0]?.source ?? null).toBeNull();
    }),
  );
});

it.each<[string, CopiedRange[], ReturnType<typeof planParts>]>([
  ['nothing is copied', [], []],
  ['a range is too short', [{ start: 2, source: 9, length: 13 }], []],
  [
    'a range is long enough behind the first part',
    [{ start: 2, source: 9, length: 14 }],
    [
      { start: 0, end: 7, source: null },
      { start: 8, end: 15, source: 15 },
    ],
  ],
  [
    'a range follows another',
    [
      { start: 2, source: 9, length: 14 },
      { start: 16, source: 50, length: 40 },
    ],
    [
      { start: 0, end: 7, source: null },
      { start: 8, end: 15, source: 15 },
      { start: 16, end: 35, source: 50 },
      { start: 36, end: 55, source: 70 },
    ],
  ],
  [
    'short ranges lie between',
    [
      { start: 2, source: 9, length: 14 },
      { start: 16, source: 50, length: 3 },
      { start: 19, source: 70, length: 20 },
    ],
    [
      { start: 0, end: 7, source: null },
      { start: 8, end: 15, source: 15 },
      { start: 16, end: 23, source: null },
      { start: 24, end: 38, source: 75 },
    ],
  ],
])('where %s', (_what, copied, parts) => {
  expect(planParts(copied, PART)).toEqual(parts);
});
