import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { NodeProbe } from './node-probe.js';
import type { RemoteBuildNodeStatus } from './remote-build-nodes.dto.js';

const run = promisify(execFile);

/** Milliseconds that a node gets to answer. */
const TIMEOUT = 10_000;
const CONNECT_SECONDS = 5;
const UNKNOWN = 'Unknown';

/** Printed line by line: the architecture, the version of podman, and how many containers of jobs run. */
const QUESTION =
  'uname -m; podman --version 2>/dev/null || echo none; podman ps -q --filter name=ims- 2>/dev/null | wc -l';

const OPTIONS = [
  'BatchMode=yes',
  `ConnectTimeout=${CONNECT_SECONDS}`,
  'StrictHostKeyChecking=accept-new',
  'UserKnownHostsFile=/dev/null',
  'LogLevel=ERROR',
].flatMap((option) => ['-o', option]);

/** Asks nodes by ssh, as root, with a key that the site gives to the service. */
export class SshNodeProbe extends NodeProbe {
  /** @param keyFile private key; null where the site has given none */
  constructor(private readonly keyFile: string | null) {
    super();
  }

  override async ask(xname: string): Promise<RemoteBuildNodeStatus> {
    const unreachable = (why: string) => ({
      xname,
      sshStatus: `Unable to connect to node. ${why}`,
      podmanStatus: UNKNOWN,
      nodeArch: UNKNOWN,
      numCurrentJobs: -1,
      ableToRunJobs: false,
    });
    if (!this.keyFile) return unreachable('No key is configured: set REMOTE_BUILD_NODE_KEY to a private key file.');
    try {
      const target = ['-i', this.keyFile, `root@${xname}`, '--', QUESTION];
      const { stdout } = await run('ssh', ['-F', 'none', ...OPTIONS, ...target], { timeout: TIMEOUT });
      return statusOf(xname, stdout);
    } catch (error) {
      const { stderr, killed } = error as { stderr?: string; killed?: boolean };
      return unreachable(killed ? `It did not answer within ${TIMEOUT / 1000} s.` : lastLine(stderr));
    }
  }
}

function lastLine(stderr: string | undefined): string {
  return stderr?.trim().split('\n').at(-1)?.trim() || 'ssh failed.';
}

function statusOf(xname: string, answer: string): RemoteBuildNodeStatus {
  const [nodeArch = '', podman = 'none', jobs = ''] = answer.trim().split('\n');
  const hasPodman = podman !== 'none';
  return {
    xname,
    sshStatus: 'Able to connect to node.',
    podmanStatus: hasPodman ? `Podman present: ${podman.replace(/^podman version /, '')}` : 'Podman not present.',
    nodeArch: nodeArch || UNKNOWN,
    numCurrentJobs: hasPodman && /^\d+$/.test(jobs.trim()) ? Number(jobs) : -1,
    ableToRunJobs: hasPodman && ['x86_64', 'aarch64'].includes(nodeArch),
  };
}
