import { randomUUID } from 'node:crypto';
import { lstatSync } from 'node:fs';
import { rename, rm, writeFile } from 'node:fs/promises';
import type { HostKey } from '../../protocol/job-report.js';
import { type ShellOutcome, signalDirectory } from '../../protocol/signals.js';
import { placeCaCertificate } from '../ca-certificate.js';
import type { ServerRecord } from '../ims-client.js';
import { ImageRoot, type MountedRoot } from '../image-root.js';
import { JobFailure } from '../job-failure.js';
import { findIn } from '../linux.js';
import { openUserNamespace, type UserNamespace } from '../namespaces.js';
import { keepResolvConf, provideResolvConf } from '../resolv-conf.js';
import { makeBox } from '../sandbox/box.js';
import { ShellNetwork, shellResolvConf } from '../sandbox/network.js';
import { Sandbox } from '../sandbox/sandbox.js';
import { waitForSshd } from '../sandbox/sshd-answers.js';
import { openSshRelease, sshdConfig } from '../sandbox/sshd-config.js';
import { waitForDeadline } from '../shell-deadline.js';
import { InotifySignalFiles, removeSignalFiles, type SignalFiles } from '../signal-files.js';
import { Teardown } from '../teardown.js';
import type { PhaseContext } from './phase.js';

/** Seconds in which sshd has to answer; a busy machine may take a while. */
const SSHD_SECONDS = 60;
/** Milliseconds that users get to log out when the shell ends. */
const LOGOUT_TIME = 2000;
/** Milliseconds between two looks at the disk. */
const DISK_INTERVAL = 2000;

/**
 * Opens the image root to the user by ssh until he says how it ended. The outcome is written when nobody can write to the image root any
 * more: everything of the sandbox is dead, and nothing of the image is mounted here.
 */
export async function shell(context: PhaseContext): Promise<void> {
  const { directory, commands, log } = context;
  const root = await ImageRoot.prepare(directory, commands, log);
  const teardown = new Teardown();
  let signal: ShellOutcome['signal'];
  try {
    await prepareRoot(context, root);
    signal = await runShell(context, root, teardown);
  } finally {
    await teardown.run();
  }
  log('the shell is closed', { signal });
  await writeOutcome(directory.outcome, { signal, root: root.kind });
}

/** Readies the image root for its user, before anybody can see it. */
async function prepareRoot({ job, directory, commands, log }: PhaseContext, root: ImageRoot): Promise<void> {
  const mounted = await root.mountPlain();
  try {
    if (job.shell.jail) refuseUnjailable(mounted.path);
    await removeSignalFiles(mounted.path, signalDirectory(job.shell.jail));
    if (!mounted.pristine) await keepResolvConf(mounted.path, directory.pristine, commands);
    if (!(await provideResolvConf(mounted.path, shellResolvConf())))
      log('the image has no /etc: names will not resolve in it');
    await placeCaCertificate(mounted.path, job.ca_certificate);
  } finally {
    await mounted.unmount();
  }
}

/** sshd closes every connection where these rules are broken, without a word to the user. */
function refuseUnjailable(root: string): void {
  const { uid, mode } = lstatSync(root);
  if (uid !== 0 || mode & 0o022)
    throw new JobFailure(
      'the root directory of the image must belong to root and be writable for root only, or sshd opens no jailed shell in it: start the job without a jail and change that',
    );
}

/** Runs the shell to its end; how to take it apart again is left in `teardown`. */
async function runShell(context: PhaseContext, root: ImageRoot, teardown: Teardown): Promise<ShellOutcome['signal']> {
  const { job, directory, commands, log } = context;
  const users = await openUserNamespace();
  teardown.add(() => users.close());
  const mounted = await root.mountMapped(users);
  teardown.add(() => mounted.unmount());
  const hostKey = await fillBox(context, mounted, users);
  const network = await ShellNetwork.open(commands, relativeSocket(directory.networkSocket));
  teardown.add(() => network.close());
  const sandbox = await Sandbox.start(
    {
      directory: directory.path,
      box: directory.box,
      boxMount: directory.boxMount,
      imageRoot: mounted.path,
      hostName: hostNameOf(job.job_id),
      dkms: job.require_dkms,
      userNamespace: users,
      network: network.namespace,
    },
    commands,
    log,
  );
  teardown.add(() => sandbox.kill());
  const port = await network.forward(job.shell.listenAddress, job.shell.port);
  await raceEnd(sandbox, waitForSshd(job.shell.listenAddress, port, SSHD_SECONDS));
  const record = await reportReady(context, hostKey, port);
  const seen = job.shell.jail ? mounted.path : directory.box;
  const signal = await waitForEnd(
    context,
    sandbox,
    record,
    new InotifySignalFiles(seen, signalDirectory(job.shell.jail)),
  );
  await letLogOut(sandbox);
  return signal;
}

/** The kernel takes short paths for sockets only; this process stands in the job directory. */
function relativeSocket(socket: string): string {
  return socket.slice(socket.lastIndexOf('/') + 1);
}

function hostNameOf(jobId: string): string {
  return `ims-${jobId.slice(0, 8)}`;
}

async function fillBox({ job, directory, commands }: PhaseContext, root: MountedRoot, users: UserNamespace) {
  const { jail } = job.shell;
  const version = await commands.run('ssh', ['-V']);
  const settings = {
    loginShell: jail ? shellOfImage(root.path) : '/bin/bash',
    hostName: hostNameOf(job.job_id),
    sshdConfig: sshdConfig({
      jobId: job.job_id,
      arch: job.arch,
      dkms: job.require_dkms,
      jail,
      release: openSshRelease(version.stderr),
    }),
    authorizedKeys: job.public_key,
    resolvConf: shellResolvConf(),
    caCertificate: job.ca_certificate,
  };
  return makeBox(directory.box, settings, users.ids, commands);
}

function shellOfImage(root: string): string {
  for (const program of ['/bin/bash', '/bin/sh']) {
    const found = findIn(root, program, 'any');
    found?.close();
    if (found) return program;
  }
  throw new JobFailure('the image holds neither /bin/bash nor /bin/sh: start the job without a jail');
}

function reportReady({ job, ims, log }: PhaseContext, hostKey: HostKey, port: number): Promise<ServerRecord> {
  log('waits for the user', { address: `${job.shell.listenAddress}:${port}`, host_key: hostKey.fingerprint });
  return ims.report({
    status: 'waiting_on_user',
    host_keys: [hostKey],
    ...(port !== job.shell.port && { ssh_port: port }),
  });
}

/** Waits for something that needs the sandbox; rejects when that ends first. */
function raceEnd<T>(sandbox: Sandbox, work: Promise<T>): Promise<T> {
  const ended = sandbox.ended.then(({ code, signal }) => {
    throw new Error(`the sandbox ended (code ${code}, signal ${signal})`);
  });
  return Promise.race([work, ended]);
}

/** Waits until the user ends the shell, or it has to be ended. */
async function waitForEnd(
  { ims, disk }: PhaseContext,
  sandbox: Sandbox,
  record: ServerRecord,
  files: SignalFiles,
): Promise<ShellOutcome['signal']> {
  const abort = new AbortController();
  let timer: NodeJS.Timeout | undefined;
  const full = new Promise<never>((_, reject) => {
    timer = setInterval(() => void disk.expectFree(0).catch(reject), DISK_INTERVAL);
  });
  const ended = sandbox.ended.then(() => files.look() ?? refuseEnd());
  const signalled = files.next(abort.signal);
  const deadline = waitForDeadline(record, ims, () => sandbox.isUsed(), abort.signal);
  // Where another comes first, nobody waits for these.
  for (const waiting of [signalled, deadline, ended]) waiting.catch(() => {});
  try {
    return await Promise.race([signalled, ended, deadline, full]);
  } finally {
    clearInterval(timer);
    abort.abort();
  }
}

/**
 * The command that touched the file has still to tell its client that it went well: without that, ssh fails, and Ansible takes the machine
 * for unreachable. Whoever stays logged in is cut off all the same.
 */
async function letLogOut(sandbox: Sandbox): Promise<void> {
  for (const end = Date.now() + LOGOUT_TIME; sandbox.isUsed() && Date.now() < end;)
    await new Promise((resolve) => setTimeout(resolve, 20));
}

function refuseEnd(): never {
  throw new JobFailure(
    'the sshd of the shell was ended before the file complete or failed was touched: start the job again',
  );
}

async function writeOutcome(file: string, outcome: ShellOutcome): Promise<void> {
  const temporary = `${file}.${randomUUID()}`;
  try {
    await writeFile(temporary, JSON.stringify(outcome), { flush: true });
    await rename(temporary, file);
  } catch (error) {
    await rm(temporary, { force: true });
    throw error;
  }
}
