import type { ShellOutcome } from '../protocol/signals.js';
import type { ImsClient, ServerRecord } from './ims-client.js';

/** Milliseconds between two looks at the clock, and at who is logged in. */
const INTERVAL = 1000;
/** Milliseconds between two questions to the server: deadlines can be moved while the shell is open. */
const REFRESH = 10_000;

/** The deadlines of a shell, as the job's record tells them. */
interface Deadlines {
  /** Milliseconds since 1970; null for never. */
  end: number | null;
  /** Milliseconds; null where a shell that nobody uses stays open. */
  idle: number | null;
}

function deadlinesOf(record: ServerRecord): Deadlines {
  const [end, idle] = [record['shell_deadline'], record['shell_idle_seconds']];
  return { end: typeof end === 'string' ? Date.parse(end) : null, idle: typeof idle === 'number' ? idle * 1000 : null };
}

/**
 * Waits until a shell has been open, or has been without anybody in it, for too long.
 * @param record of the job, when the shell was opened
 * @param isUsed whether anybody is in the shell now
 * @throws JobIsOver; the reason of `abort` when that is aborted
 */
export async function waitForDeadline(
  record: ServerRecord,
  ims: ImsClient,
  isUsed: () => boolean,
  abort: AbortSignal,
): Promise<Extract<ShellOutcome['signal'], 'expired' | 'idle'>> {
  let deadlines = deadlinesOf(record);
  let used = Date.now();
  const refresh = async () => {
    deadlines = await ims.lookAtJob().then((known) => (known ? deadlinesOf(known) : deadlines));
  };
  for (let refreshed = Date.now(); ; await new Promise((resolve) => setTimeout(resolve, INTERVAL))) {
    abort.throwIfAborted();
    if (isUsed()) used = Date.now();
    if (!reached(deadlines, used) && Date.now() - refreshed < REFRESH) continue;
    refreshed = Date.now();
    await refresh();
    const end = reached(deadlines, used);
    if (end) return end;
  }
}

function reached({ end, idle }: Deadlines, used: number): 'expired' | 'idle' | null {
  if (end !== null && Date.now() >= end) return 'expired';
  return idle !== null && Date.now() - used >= idle ? 'idle' : null;
}
