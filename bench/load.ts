import { Agent, request } from 'node:http';

/** One request, again and again. */
export interface Shot {
  url: string;
  method?: 'GET' | 'POST';
  body?: string;
}

function fire(agent: Agent, { url, method = 'GET', body }: Shot): Promise<void> {
  return new Promise((resolve, reject) => {
    const headers = body ? { 'content-type': 'application/json', 'content-length': Buffer.byteLength(body) } : {};
    const sent = request(url, { agent, method, headers }, (response) => {
      if (response.statusCode! >= 300) reject(new Error(`${method} ${url}: ${response.statusCode}`));
      response.resume().once('end', resolve).once('error', reject);
    });
    sent.once('error', reject).end(body);
  });
}

/** Requests per second that a server answers to so many clients at a time. */
export async function rate(shots: () => Shot, clients: number, seconds: number): Promise<number> {
  const agent = new Agent({ keepAlive: true, maxSockets: clients });
  const begun = performance.now();
  let done = 0;
  await Promise.all(
    Array.from({ length: clients }, async () => {
      for (; performance.now() - begun < seconds * 1000; done++) await fire(agent, shots());
    }),
  );
  const rated = done / ((performance.now() - begun) / 1000);
  agent.destroy();
  return rated;
}

function median(values: number[]): number {
  const sorted = values.toSorted((one, other) => one - other);
  return sorted[Math.floor(sorted.length / 2)]!;
}

/**
 * Measures two things in turns, so that noise of the machine hits both.
 * @returns the rates, and the median of the ratios of neighbouring turns
 */
export async function compare(
  one: () => Promise<number>,
  other: () => Promise<number>,
  turns: number,
): Promise<{ one: number; other: number; ratio: number }> {
  const rates: [number, number][] = [];
  await one();
  await other();
  for (let turn = 0; turn < turns; turn++) {
    // Whoever comes first in a turn has the warmer processor; that changes from turn to turn.
    if (turn % 2) rates.push(await both(one, other));
    else rates.push((await both(other, one)).toReversed() as [number, number]);
  }
  return {
    one: median(rates.map(([rated]) => rated)),
    other: median(rates.map(([, rated]) => rated)),
    ratio: median(rates.map(([rated, base]) => rated / base)),
  };
}

async function both(first: () => Promise<number>, second: () => Promise<number>): Promise<[number, number]> {
  const rated = await first();
  return [rated, await second()];
}
