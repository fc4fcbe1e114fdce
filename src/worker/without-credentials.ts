/** Up to the last @ before the path: a password may hold one. */
const USER_INFO = /(\w:\/\/)[^\s/?#]*@/g;
/** Servers of updates take tokens there (SUSE's do). */
const QUERY = /(\b(?:https?|ftp):\/\/[^\s?'"<>]*)\?[^\s'"<>\]]+/gi;

/** A text whose addresses tell neither users nor passwords nor queries, which belong into no log and no reason. */
export function withoutCredentials(text: string): string {
  return text.replace(USER_INFO, '$1').replace(QUERY, '$1?…');
}
