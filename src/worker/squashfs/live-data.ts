import { blockLength, type FileInode, storedLength, tailLength } from './inode.js';
import type { SquashfsImage } from './squashfs-image.js';

/** Bytes from `start` to before `end`. */
export interface Interval {
  start: number;
  end: number;
}

/** A block of fragments of which some is still needed. */
export interface LiveFragment {
  index: number;
  /** What is needed of it, sorted; intervals may overlap. */
  tails: Interval[];
}

/** What a new image takes from its source. */
export interface LiveData {
  /** Stretches of the source that are copied as they are: sorted, and none touches the next. */
  copied: Interval[];
  /** Blocks of fragments that are part of `copied`, by their order in the source. */
  wholeFragments: number[];
  /** Blocks of fragments that also hold what is needed no more: only `tails` of them may go on. */
  brokenFragments: LiveFragment[];
}

/**
 * Finds what of an image is still needed.
 * @param live files of the image whose contents are needed
 * @throws BadSquashfs
 */
export function findLiveData(image: SquashfsImage, live: Iterable<FileInode>): LiveData {
  const runs: Interval[] = [];
  const tails = new Map<number, Interval[]>();
  for (const inode of live) {
    const length = storedLength(inode);
    image.checkData(length ? inode.start : image.dataStart, length);
    if (length) runs.push({ start: inode.start, end: inode.start + length });
    addTail(tails, inode, image);
  }
  const broken = brokenFragments(image, tails);
  const whole = [...tails.keys()].filter((index) => !broken.has(index)).toSorted((a, b) => a - b);
  return {
    copied: union([...runs, ...whole.map((index) => fragmentInterval(image, index))]),
    wholeFragments: whole,
    brokenFragments: [...broken]
      .toSorted((a, b) => a - b)
      .map((index) => ({ index, tails: tails.get(index)!.toSorted(byStart) })),
  };
}

function addTail(tails: Map<number, Interval[]>, inode: FileInode, image: SquashfsImage): void {
  if (!inode.fragment) return;
  const { index, offset } = inode.fragment;
  image.fragment(index);
  const interval = { start: offset, end: offset + tailLength(inode, image.superblock.blockSize) };
  const known = tails.get(index);
  if (known) known.push(interval);
  else tails.set(index, [interval]);
}

/** Of the blocks of fragments in use, those in which some file of the image had bytes that no live file has, or that have a gap. */
function brokenFragments(image: SquashfsImage, live: ReadonlyMap<number, Interval[]>): Set<number> {
  const ends = image.index.fragmentEnds;
  const isWhole = ([index, intervals]: [number, Interval[]]) => {
    const needed = union(intervals);
    return needed.length === 1 && needed[0]!.start === 0 && needed[0]!.end >= ends[index]!;
  };
  return new Set([...live].filter((entry) => !isWhole(entry)).map(([index]) => index));
}

function fragmentInterval(image: SquashfsImage, index: number): Interval {
  const { start, word } = image.fragment(index);
  const length = blockLength(word);
  image.checkData(start, length);
  return { start, end: start + length };
}

/** The same bytes in as few intervals as possible, sorted. */
export function union(intervals: readonly Interval[]): Interval[] {
  const result: Interval[] = [];
  for (const { start, end } of intervals.toSorted(byStart)) {
    const last = result.at(-1);
    if (last && start <= last.end) last.end = Math.max(last.end, end);
    else result.push({ start, end });
  }
  return result;
}

function byStart(a: Interval, b: Interval): number {
  return a.start - b.start || a.end - b.end;
}
