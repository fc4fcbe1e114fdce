import { stripVTControlCharacters } from 'node:util';

/** Longest reason in a job's record, units of UTF-16; the server takes twice as many. */
const LIMIT = 4000;

/** The beginning of a text, of whole characters; a longer one ends in an ellipsis. */
export function clip(text: string, limit: number): string {
  return text.length <= limit ? text : `${text.slice(0, limit).replace(/[\uD800-\uDBFF]$/, '')}…`;
}

/**
 * A reason as a job's record can hold it, on one line. Reasons quote what recipes, scripts and servers wrote: the server would refuse a NUL or
 * half of a character, and nobody would learn why the job ended.
 */
export function tellableReason(text: string): string {
  const visible = stripVTControlCharacters(text.toWellFormed())
    .replace(/[\r\n\t]+/g, ' ')
    .replace(/\p{Cc}/gu, '');
  return clip(visible, LIMIT);
}
