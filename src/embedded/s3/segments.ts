/** A run of bytes of a blob; an object is a list of them. */
export interface Segment {
  blob: string;
  offset: number;
  size: number;
}

/** Bytes of a run of segments from `start`, `end` included. */
export function sliceSegments(segments: readonly Segment[], start: number, end: number): Segment[] {
  const slice: Segment[] = [];
  let position = 0;
  for (const segment of segments) {
    const from = Math.max(start - position, 0);
    const to = Math.min(end + 1 - position, segment.size);
    if (from < to) slice.push({ blob: segment.blob, offset: segment.offset + from, size: to - from });
    position += segment.size;
  }
  return slice;
}

/** Joins neighbours that follow each other in one blob: an upload whose parts were written in place becomes one segment. */
export function joinSegments(segments: readonly Segment[]): Segment[] {
  const joined: Segment[] = [];
  for (const segment of segments) {
    const last = joined.at(-1);
    if (last && last.blob === segment.blob && last.offset + last.size === segment.offset) last.size += segment.size;
    else joined.push({ ...segment });
  }
  return joined;
}
