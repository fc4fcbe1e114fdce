/** Ids of this machine that stand in for the ids of a shell: its root is `first`. */
export interface IdRange {
  first: number;
  /** How many ids the shell has, from 0. */
  count: number;
}

/** Above the ids that distributions and their service managers give out. */
const FIRST = 300_000;
/** Ids are 32 bits; the last one means "no id". */
const IDS = 2 ** 32 - 1;
/** Fewer would lose `nobody` (65534). */
const LEAST = 65_536;

/**
 * The ids for shells, from the text of `/proc/self/uid_map` or `gid_map`: all that there are above the first. Images hold owners far above
 * 65535 (directory services hand them out), and an owner outside of the range can neither be changed nor be copied up.
 * @throws Error with a sentence where this process itself has too few ids
 */
export function shellIdRange(map: string): IdRange {
  const ends = map
    .trim()
    .split('\n')
    .map((line) => line.trim().split(/\s+/).map(Number))
    .map(([inside, , length]) => ({ from: inside ?? 0, to: (inside ?? 0) + (length ?? 0) }));
  const home = ends.find(({ from, to }) => from <= FIRST && FIRST < to);
  const count = home ? Math.min(home.to, IDS) - FIRST : 0;
  if (count < LEAST)
    throw new Error(
      `the ids from ${FIRST} on are missing in the user namespace of the server: run it outside of a user namespace, or give its container at least ${FIRST + LEAST} ids`,
    );
  return { first: FIRST, count };
}
