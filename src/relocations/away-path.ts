import { findLocation, linkPath } from '../protocol/artifact-link.js';

/** First part of the key of every artifact whose record is deleted. Boot services tell deleted images by it. */
const AWAY = 'deleted/';

/**
 * Where an artifact goes when its record is deleted: `deleted/<key>` in the same bucket. Where another artifact is there already, as one of
 * an earlier record with the same link, the id of the record comes in between, and a number behind it where even that is taken.
 */
export function awayPath(home: string, recordId: string, taken: number): string {
  const { bucket, key } = findLocation(home)!;
  const between = ['', `${recordId}/`][taken] ?? `${recordId}/${taken}/`;
  return linkPath({ bucket, key: `${AWAY}${between}${key}` });
}

/** Whether a path leads to an artifact of a deleted record. */
export function isAway(path: string): boolean {
  return findLocation(path)?.key.startsWith(AWAY) ?? false;
}

/** Where an artifact of a deleted record of the original belongs: there, only `deleted/` was put in front of the key. */
export function homePath(away: string): string {
  const { bucket, key } = findLocation(away)!;
  return linkPath({ bucket, key: key.startsWith(AWAY) ? key.slice(AWAY.length) : key });
}
