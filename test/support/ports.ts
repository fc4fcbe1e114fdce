import { isFree } from '../../src/jobs/launcher/local/ssh-ports.js';

/**
 * The first of some loopback ports on which nothing listens. They lie below those that the kernel gives to outgoing connections
 * (`ip_local_port_range`), since a connection of another suite may hold any of these at any time.
 */
export async function freePorts(count = 1): Promise<number> {
  const first = 10_000 + Math.floor(Math.random() * 9000);
  for (let port = first; port < first + count; port++) if (!(await isFree('127.0.0.1', port))) return freePorts(count);
  return first;
}
