import { readdirSync, readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';

/** The first process of the worker's container image. It takes over what loses its parent. */
const INIT = 'tini';
/** Milliseconds between two looks at what was killed, and until it has to be gone. */
const INTERVAL = 20;
const PATIENCE = 60_000;

/** @throws Error where this process sees more than those of a container of its own: they are about to be ended */
export function refuseOutsideOfContainer(): void {
  if (readFileSync('/proc/1/comm', 'utf8').trim() !== INIT)
    throw new Error(`the worker was told that it runs in a pod, but the first process is not ${INIT}`);
}

/** Whether anything runs in this container beside its init, this process and one other. */
export function hasOthers(than: number): boolean {
  return others().some((pid) => pid !== than);
}

/** Ends everything in this container but its init and this process, however fast it makes new processes. */
export async function endOthers(): Promise<void> {
  refuseOutsideOfContainer();
  for (const deadline = Date.now() + PATIENCE; others().length > 0; await sleep(INTERVAL)) {
    if (Date.now() > deadline) throw new Error('programs of the user cannot be ended: they hang in the kernel');
    // All at once: one by one, a program could go on in children that were not there when it was looked at.
    process.kill(-1, 'SIGKILL');
  }
}

/** Ids of all processes of this container that live, but for its init and this process. */
function others(): number[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map(Number)
    .filter((pid) => pid !== 1 && pid !== process.pid && lives(pid));
}

/** From proc_pid_stat(5): the name of the program stands in parentheses and may hold anything. */
function lives(pid: number): boolean {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    return !'ZX'.includes(stat.slice(stat.lastIndexOf(')') + 2)[0]!);
  } catch {
    return false;
  }
}
