import { choosePartSize, guessPartSize, isMultipart, MAX_PARTS, PART_SIZE, partRanges } from './part-layout.js';

const MIB = 1024 * 1024;
const GB = 1_000_000_000;

describe('part layout', () => {
  it('uses parts of 8 MiB up to what 10,000 of them hold', () => {
    expect(choosePartSize(0)).toBe(PART_SIZE);
    expect(choosePartSize(PART_SIZE * MAX_PARTS)).toBe(PART_SIZE);
  });

  it.each([PART_SIZE * MAX_PARTS + 1, 100 * GB, 5_000 * GB])('needs at most 10,000 parts for %d bytes', (size) => {
    const partSize = choosePartSize(size);
    expect(partSize % MIB).toBe(0);
    expect(Math.ceil(size / partSize)).toBeLessThanOrEqual(MAX_PARTS);
    expect(Math.ceil(size / (partSize - MIB))).toBeGreaterThan(MAX_PARTS);
  });

  it('covers every byte once', () => {
    expect(partRanges(20, 8)).toEqual([
      { start: 0, end: 7 },
      { start: 8, end: 15 },
      { start: 16, end: 19 },
    ]);
    expect(partRanges(16, 8)).toHaveLength(2);
    expect(partRanges(0, 8)).toEqual([]);
  });

  it('knows etags of artifacts in parts', () => {
    expect(isMultipart('d41d8cd98f00b204e9800998ecf8427e-3')).toBe(true);
    expect(isMultipart('d41d8cd98f00b204e9800998ecf8427e')).toBe(false);
  });

  it.each([
    ['our own parts', 20 * MIB, 3, 8 * MIB],
    ['parts of 5 MiB', 20 * MIB, 4, 5 * MIB],
    ['parts of 16 MiB', 100 * MIB, 7, 16 * MIB],
    ['parts of nobody we know', 100 * MIB, 99, 8 * MIB],
  ])('finds the part size of %s', (_, size, count, expected) => {
    expect(guessPartSize(size, `d41d8cd98f00b204e9800998ecf8427e-${count}`)).toBe(expected);
  });
});
