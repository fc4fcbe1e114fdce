import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, openSync, readFileSync, writeFileSync } from 'node:fs';
import { COMMAND_PATH } from './commands.js';
import { type IdRange, shellIdRange } from './id-range.js';

/** A namespace that lives as long as this file descriptor is open, or a process is in it. */
export interface Namespace {
  readonly fd: number;
  close(): void;
}

/** A user namespace whose ids 0 and up are these ids of the machine, both for users and for groups. */
export interface UserNamespace extends Namespace {
  readonly ids: IdRange;
}

/**
 * Makes a user namespace with as many ids as there are.
 * @throws Error with a sentence where this host does not allow it
 */
export async function openUserNamespace(): Promise<UserNamespace> {
  const ids = shellIdRange(readFileSync('/proc/self/uid_map', 'utf8'));
  const fd = await openNamespace('user', (pid) => {
    for (const map of ['uid_map', 'gid_map']) writeFileSync(`/proc/${pid}/${map}`, `0 ${ids.first} ${ids.count}\n`);
  });
  return { fd, ids, close: () => closeSync(fd) };
}

/** Makes a network namespace. It belongs to the user namespace of this process, so that nobody in a shell has any right over it. */
export async function openNetworkNamespace(): Promise<Namespace> {
  const fd = await openNamespace('net', () => {});
  return { fd, close: () => closeSync(fd) };
}

/**
 * A process with several threads, as Node is, cannot enter a user namespace. So a process that does nothing enters a new namespace, and is
 * ended once this process has the namespace open.
 */
async function openNamespace(kind: 'user' | 'net', prepare: (pid: number) => void): Promise<number> {
  const holder = spawn('unshare', [`--${kind}`, '--', 'cat'], {
    stdio: ['pipe', 'pipe', 'pipe'],
    env: { PATH: COMMAND_PATH },
  });
  try {
    await echo(holder, kind);
    prepare(holder.pid!);
    return openSync(`/proc/${holder.pid}/ns/${kind}`, 'r');
  } finally {
    holder.kill('SIGKILL');
  }
}

/** Resolves when `cat` answers, which is when `unshare` has made the namespace. */
async function echo(holder: ChildProcess, kind: string): Promise<void> {
  let errors = '';
  holder.stderr!.on('data', (text: Buffer) => (errors += text.toString()));
  // An end before the answer shows as the end of its output.
  holder.stdin!.on('error', () => {});
  holder.stdin!.write('\n');
  const ended = once(holder, 'close');
  const answered = await Promise.race([once(holder.stdout!, 'data').then(() => true), ended.then(() => false)]);
  if (!answered)
    throw new Error(
      `this host refuses a new ${kind} namespace (${errors.trim()}): allow user namespaces, or run the container with --privileged`,
    );
}
