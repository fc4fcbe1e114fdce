import { lstatSync } from 'node:fs';
import type { CustomizeSpec } from '../../protocol/job-spec.js';
import { type ShellOutcome, signalDirectory } from '../../protocol/signals.js';
import { placeCaCertificate } from '../ca-certificate.js';
import type { Place } from '../config.js';
import { writeDurably } from '../durable-file.js';
import type { ServerRecord } from '../ims-client.js';
import { ImageRoot } from '../image-root.js';
import { JobFailure } from '../job-failure.js';
import { podShell } from '../pod/pod-shell.js';
import { keepResolvConf, provideResolvConf } from '../resolv-conf.js';
import { sandboxShell } from '../sandbox/sandbox-shell.js';
import { waitForSshd } from '../sandbox/sshd-answers.js';
import { waitForDeadline } from '../shell-deadline.js';
import type { OpenShell, ShellContext, ShellEnvironment } from '../shell-environment.js';
import { InotifySignalFiles, removeSignalFiles, type SignalFiles } from '../signal-files.js';
import { Teardown } from '../teardown.js';
import type { PhaseContext } from './phase.js';

/** What the user works in, by the place where phases run. */
const ENVIRONMENT: Record<Place, ShellEnvironment> = { machine: sandboxShell, pod: podShell };

/** Seconds in which sshd has to answer; a busy machine may take a while. */
const SSHD_SECONDS = 60;
/** Milliseconds that users get to log out when the shell ends. */
const LOGOUT_TIME = 2000;
/** Milliseconds between two looks at the disk. */
const DISK_INTERVAL = 2000;

/** Opens the image root of a customize job to the user. */
export async function shell(context: PhaseContext<CustomizeSpec>): Promise<void> {
  await openShell(context, await ImageRoot.prepare(context));
}

/**
 * Opens an image root to the user by ssh until he says how it ended. The outcome is written when nobody can write to the image root any
 * more: everything of the sandbox is dead, and nothing of the image is mounted here.
 * @param reason why the job waits, for its record
 */
export async function openShell(context: ShellContext, root: ImageRoot, reason?: string): Promise<void> {
  const { directory, log } = context;
  const teardown = new Teardown();
  let signal: ShellOutcome['signal'];
  try {
    await prepareRoot(context, root);
    signal = await runShell(context, root, teardown, reason);
  } finally {
    await teardown.run();
  }
  log('the shell is closed', { signal });
  const outcome: ShellOutcome = { signal, root: root.kind };
  await writeDurably(directory.outcome, outcome);
}

/** Readies the image root for its user, before anybody can see it. */
async function prepareRoot({ job, place, directory, commands, log }: ShellContext, root: ImageRoot): Promise<void> {
  const mounted = await root.mountPlain();
  try {
    if (job.shell.jail) refuseUnjailable(mounted.path);
    await removeSignalFiles(mounted.path, signalDirectory(job.shell.jail));
    if (!mounted.pristine) await keepResolvConf(mounted.path, directory.pristine, commands);
    if (!(await provideResolvConf(mounted.path, await ENVIRONMENT[place].resolvConf())))
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
async function runShell(
  context: ShellContext,
  root: ImageRoot,
  teardown: Teardown,
  reason?: string,
): Promise<ShellOutcome['signal']> {
  const { job, log } = context;
  const open = await ENVIRONMENT[context.place].open(context, root, teardown);
  await raceEnd(open, waitForSshd(open.listenAddress, open.port, SSHD_SECONDS));
  log('waits for the user', { address: `${open.listenAddress}:${open.port}`, host_key: open.hostKey.fingerprint });
  const record = await reportReady(context, open, reason);
  const files = new InotifySignalFiles(open.seen, signalDirectory(job.shell.jail));
  const signal = await waitForEnd(context, open, record, files);
  await letLogOut(open);
  return signal;
}

function reportReady({ job, ims }: ShellContext, { hostKey, port }: OpenShell, reason?: string): Promise<ServerRecord> {
  return ims.report({
    status: 'waiting_on_user',
    host_keys: [hostKey],
    ...(reason !== undefined && { status_reason: reason, status_code: 'build' }),
    ...(port !== job.shell.port && { ssh_port: port }),
  });
}

/** Waits for something that needs the shell; rejects when that ends first. */
function raceEnd<T>(open: OpenShell, work: Promise<T>): Promise<T> {
  const ended = open.ended.then(({ code, signal }) => {
    throw new Error(`the shell ended (code ${code}, signal ${signal})`);
  });
  return Promise.race([work, ended]);
}

/** Waits until the user ends the shell, or it has to be ended. */
async function waitForEnd(
  { ims, disk }: PhaseContext,
  open: OpenShell,
  record: ServerRecord,
  files: SignalFiles,
): Promise<ShellOutcome['signal']> {
  const abort = new AbortController();
  let timer: NodeJS.Timeout | undefined;
  const full = new Promise<never>((_, reject) => {
    timer = setInterval(() => void disk.expectFree(0).catch(reject), DISK_INTERVAL);
  });
  const ended = open.ended.then(() => files.look() ?? refuseEnd());
  const signalled = files.next(abort.signal);
  const deadline = waitForDeadline(record, ims, () => open.isUsed(), abort.signal);
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
async function letLogOut(open: OpenShell): Promise<void> {
  for (const end = Date.now() + LOGOUT_TIME; open.isUsed() && Date.now() < end;)
    await new Promise((resolve) => setTimeout(resolve, 20));
}

function refuseEnd(): never {
  throw new JobFailure(
    'the sshd of the shell was ended before the file complete or failed was touched: start the job again',
  );
}
