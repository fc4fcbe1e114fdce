import { writeFile } from 'node:fs/promises';
import type { JobView } from '../../src/quickstart/api.js';

/** Where and how ssh, scp and sftp reach the shell of a job. */
export interface SshAccess {
  options: string[];
  host: string;
  port: string;
}

/**
 * Access to a job's shell that trusts nothing but the host keys of its record.
 * @param key file of the private key
 * @param knownHosts file that is written for it
 */
export async function sshAccess({ ssh_containers }: JobView, key: string, knownHosts: string): Promise<SshAccess> {
  const [container] = ssh_containers!;
  const { host: name, port, external_ip } = container!.connection_info.customer_access;
  // No name server here knows the names of a cluster's shells.
  const host = external_ip ?? name;
  // From sshd(8): a port is named only where it is not that of ssh.
  const known = port === 22 ? host : `[${host}]:${port}`;
  await writeFile(
    knownHosts,
    container!.host_keys!.map(({ type, key: each }) => `${known} ${type} ${each}\n`).join(''),
  );
  const settings = [
    `UserKnownHostsFile=${knownHosts}`,
    'StrictHostKeyChecking=yes',
    'BatchMode=yes',
    'LogLevel=ERROR',
    'ConnectTimeout=10',
  ];
  const options = ['-F', 'none', '-i', key, ...settings.flatMap((setting) => ['-o', setting])];
  return { options, host, port: String(port) };
}
