/** What a listing asks for. */
export interface ListingQuery {
  prefix: string;
  /** Empty for none. */
  delimiter: string;
  /** Only what comes after this key or common prefix, in byte order. */
  after: string;
  limit: number;
}

export interface Listing {
  keys: string[];
  /** Keys that share a prefix up to the delimiter are listed as that prefix, once. */
  commonPrefixes: string[];
  /** Where the next page begins; null where there is none. */
  next: string | null;
}

const isAfter = (text: string, after: string): boolean => Buffer.compare(Buffer.from(text), Buffer.from(after)) > 0;

/** One page of keys that are in byte order. Pure. */
export function listKeys(keys: readonly string[], { prefix, delimiter, after, limit }: ListingQuery): Listing {
  const listing: Listing = { keys: [], commonPrefixes: [], next: null };
  let last = after;
  for (const key of keys) {
    if (!key.startsWith(prefix)) continue;
    const cut = delimiter ? key.indexOf(delimiter, prefix.length) : -1;
    const name = cut < 0 ? key : key.slice(0, cut + delimiter.length);
    if (after && !isAfter(name, after)) continue;
    if (cut >= 0 && listing.commonPrefixes.at(-1) === name) continue;
    if (listing.keys.length + listing.commonPrefixes.length === limit) return { ...listing, next: limit ? last : null };
    (cut < 0 ? listing.keys : listing.commonPrefixes).push(name);
    last = name;
  }
  return listing;
}
