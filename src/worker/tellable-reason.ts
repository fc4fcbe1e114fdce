import { stripVTControlCharacters } from 'node:util';

/** Longest reason in a job's record, characters; the server takes twice as many units of UTF-16. */
const LIMIT = 4000;

/** The beginning of a text, of whole characters; a longer one ends in an ellipsis. */
export function clip(text: string, limit: number): string {
  // A character is one or two units.
  if (text.length <= limit) return text;
  const characters = [...text.slice(0, 2 * (limit + 1))];
  return characters.length <= limit ? text : `${characters.slice(0, limit).join('')}…`;
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
