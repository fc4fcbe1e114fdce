/**
 * Works on items, several at once, and hands out the results in the order of the items. Who stops taking them ends the work after those that
 * are on their way.
 * @param ahead items that are worked on at once
 */
export async function* inOrder<Item, Result>(
  items: Iterable<Item>,
  ahead: number,
  work: (item: Item) => Promise<Result>,
): AsyncGenerator<[Item, Result], void, void> {
  const running: [Item, Promise<Result>][] = [];
  for (const item of items) {
    const result = work(item);
    // It may fail before anybody waits for it.
    result.catch(() => {});
    running.push([item, result]);
    if (running.length >= ahead) yield await next(running);
  }
  while (running.length > 0) yield await next(running);
}

async function next<Item, Result>(running: [Item, Promise<Result>][]): Promise<[Item, Result]> {
  const [item, result] = running.shift()!;
  return [item, await result];
}
