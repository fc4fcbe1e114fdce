import { createServer } from 'node:net';
import { LaunchRefused } from '../job-launcher.js';

/** Whether a process could listen there now. */
export async function isFree(address: string, port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const server = createServer();
    server.once('error', () => resolve(false));
    server.listen({ host: address, port, exclusive: true }, () => server.close(() => resolve(true)));
  });
}

/**
 * A port of the range on which nothing listens and which is not taken. The search begins anywhere: were the lowest port taken again
 * and again, ssh clients would meet another host key at an address that they know, and refuse it.
 * @throws LaunchRefused where none is free
 */
export async function findFreePort(
  address: string,
  range: { first: number; last: number },
  taken: ReadonlySet<number>,
  random: () => number = Math.random,
): Promise<number> {
  const size = range.last - range.first + 1;
  const start = Math.floor(random() * size);
  for (let offset = 0; offset < size; offset++) {
    const port = range.first + ((start + offset) % size);
    if (!taken.has(port) && (await isFree(address, port))) return port;
  }
  throw new LaunchRefused(
    `all ports from ${range.first} to ${range.last} are in use: delete jobs that are not needed, or widen JOB_SSH_PORTS`,
  );
}
