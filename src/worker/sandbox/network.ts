import { readFileSync, writeFileSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { connect, createServer } from 'node:net';
import { networkInterfaces } from 'node:os';
import { text } from 'node:stream/consumers';
import type { Commands, RunningCommand } from '../commands.js';
import { JobFailure } from '../job-failure.js';
import { addRoute, inNetworkNamespace } from '../linux.js';
import { type Namespace, openNetworkNamespace } from '../namespaces.js';
import { SSHD_PORT } from './sshd-config.js';

/** Addresses that slirp4netns gives (slirp4netns(1)). */
const SHELL_ADDRESS = '10.0.2.100';
export const NAME_SERVER = '10.0.2.3';

/** Networks that are no outside: link-local, where clouds answer with credentials of the machine. */
const LINK_LOCAL = { address: '169.254.0.0', mask: '255.255.0.0' };
const HOST_MASK = '255.255.255.255';

/** Milliseconds until slirp4netns has to answer. */
const START_TIMEOUT = 10_000;

/**
 * A network of its own for a shell: it reaches the outside through a program in user space, but neither the loopback of this machine nor
 * its own addresses, where the service, the store and the database listen.
 */
export class ShellNetwork {
  private constructor(
    readonly namespace: Namespace,
    private readonly slirp: RunningCommand,
    private readonly socket: string,
  ) {}

  /** @param socket path for a socket; short, or relative to the working directory: the kernel takes 107 bytes */
  static async open(commands: Commands, socket: string): Promise<ShellNetwork> {
    const namespace = await openNetworkNamespace();
    try {
      allowLowPorts(namespace);
      await rm(socket, { force: true });
      const slirp = await startSlirp(commands, namespace, socket);
      const network = new ShellNetwork(namespace, slirp, socket);
      await network.waitUntilReady();
      blockThisMachine(namespace);
      return network;
    } catch (error) {
      namespace.close();
      throw error;
    }
  }

  /**
   * Lets clients reach sshd. Where the port is taken meanwhile, it is another one.
   * @returns the port
   * @throws JobFailure where no port of this address can be listened on
   */
  async forward(address: string, port: number): Promise<number> {
    for (const candidate of [port, await findPort(address)]) {
      const answer = await this.ask('add_hostfwd', {
        proto: 'tcp',
        host_addr: address,
        host_port: candidate,
        guest_addr: SHELL_ADDRESS,
        guest_port: SSHD_PORT,
      });
      if (!answer['error']) return candidate;
    }
    throw new JobFailure(
      `the shell cannot listen on port ${port} of ${address}: set JOB_SSH_LISTEN_ADDRESS to an IPv4 address of this machine`,
    );
  }

  async close(): Promise<void> {
    this.slirp.kill();
    await this.slirp.ended;
    this.namespace.close();
  }

  private async waitUntilReady(): Promise<void> {
    let ended = false;
    void this.slirp.ended.then(() => (ended = true));
    for (const end = Date.now() + START_TIMEOUT; ; await new Promise((resolve) => setTimeout(resolve, 10))) {
      const answer = await this.ask('list_hostfwd', {}).catch(() => null);
      if (answer) return;
      if (ended || Date.now() > end) break;
    }
    this.slirp.kill();
    const { stderr } = await this.slirp.ended;
    throw new Error(`slirp4netns does not start: ${stderr.trim()}`);
  }

  /** One request on the control socket of slirp4netns. */
  private async ask(execute: string, argument: object): Promise<Record<string, unknown>> {
    const connection = connect(this.socket);
    connection.end(JSON.stringify({ execute, arguments: argument }));
    return JSON.parse(await text(connection)) as Record<string, unknown>;
  }
}

function startSlirp(commands: Commands, { fd }: Namespace, socket: string): Promise<RunningCommand> {
  const options = ['--configure', '--mtu=65520', '--disable-host-loopback', '--enable-seccomp'];
  const target = ['--netns-type=path', `/proc/${process.pid}/fd/${fd}`, 'tap0'];
  return commands.start('slirp4netns', [...options, `--api-socket=${socket}`, ...target], {
    cwd: process.cwd(),
  });
}

/** Nobody in the shell has rights over this network: what sshd and ping need of them is given to all. */
function allowLowPorts({ fd }: Namespace): void {
  inNetworkNamespace(fd, () => {
    writeFileSync('/proc/sys/net/ipv4/ip_unprivileged_port_start', '0');
    writeFileSync('/proc/sys/net/ipv4/ping_group_range', '0 2147483647');
  });
}

function blockThisMachine({ fd }: Namespace): void {
  const own = Object.values(networkInterfaces())
    .flatMap((addresses) => addresses ?? [])
    .filter(({ family, internal }) => family === 'IPv4' && !internal)
    .map(({ address }) => ({ address, mask: HOST_MASK }));
  inNetworkNamespace(fd, () => {
    for (const { address, mask } of [...own, LINK_LOCAL]) addRoute(unreachable(address, mask));
  });
}

/** A `struct rtentry` (net/route.h, 64 bits) that makes a network unreachable. */
function unreachable(address: string, mask: string): Buffer {
  const [RTF_UP, RTF_HOST, RTF_REJECT] = [0x1, 0x4, 0x200];
  const entry = Buffer.alloc(120);
  socketAddress(address).copy(entry, 8);
  socketAddress(mask).copy(entry, 40);
  entry.writeUInt16LE(RTF_UP | RTF_REJECT | (mask === HOST_MASK ? RTF_HOST : 0), 56);
  return entry;
}

/** A `struct sockaddr_in`. */
function socketAddress(address: string): Buffer {
  const AF_INET = 2;
  const bytes = Buffer.alloc(16);
  bytes.writeUInt16LE(AF_INET, 0);
  Buffer.from(address.split('.').map(Number)).copy(bytes, 4);
  return bytes;
}

/** A port on which nothing listens now. */
async function findPort(address: string): Promise<number> {
  const server = createServer();
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen({ host: address, port: 0, exclusive: true }, () => {
      const { port } = server.address() as { port: number };
      server.close(() => resolve(port));
    });
  });
}

/** The resolv.conf of a shell: names are asked of this machine's own servers, with its search list. */
export function shellResolvConf(): string {
  const search = readFileSync('/etc/resolv.conf', 'utf8')
    .split('\n')
    .filter((line) => /^\s*(search|domain|options)\s/.test(line));
  return [...search, `nameserver ${NAME_SERVER}`, ''].join('\n');
}
