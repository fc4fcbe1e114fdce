/**
 * User metadata as every store keeps it: names in lower case.
 * @throws TypeError where a value is not printable ASCII, which HTTP headers cannot carry unchanged
 */
export function toMetadata(metadata: Record<string, string> = {}): Record<string, string> {
  const entries = Object.entries(metadata).map(([name, value]) => [name.toLowerCase(), value] as const);
  const bad = entries.find(([, value]) => !/^[\x20-\x7e]*$/.test(value));
  if (bad) throw new TypeError(`metadata ${bad[0]} holds characters other than printable ASCII`);
  return Object.fromEntries(entries);
}
