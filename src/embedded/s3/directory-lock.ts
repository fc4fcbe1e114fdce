import { randomUUID } from 'node:crypto';
import { link, readFile, rm, writeFile } from 'node:fs/promises';

/** Who holds the lock. A pid is used again after a while; with the time at which its process began it is one of a kind. */
interface Holder {
  pid: number;
  started: string;
}

/** When a process began, in clock ticks since boot (proc(5), field 22 of stat); null where there is no such process. */
async function startOf(pid: number): Promise<string | null> {
  const stat = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => null);
  // The second field is the command's name in parentheses, which may hold spaces and parentheses itself.
  const fields = stat?.slice(stat.lastIndexOf(')') + 2).split(' ');
  return fields && fields[0] !== 'Z' ? fields[19]! : null;
}

async function readHolder(file: string): Promise<Holder | null> {
  const text = await readFile(file, 'utf8').catch(() => null);
  return text === null ? null : (JSON.parse(text) as Holder);
}

/**
 * Takes a lock file that is this process's alone; one whose holder has died is taken over.
 * @returns function that gives the lock back
 * @throws Error that names the directory and the holder
 */
export async function lockDirectory(directory: string, file: string): Promise<() => Promise<void>> {
  const mine = `${file}.${randomUUID()}`;
  await writeFile(
    mine,
    JSON.stringify({ pid: process.pid, started: await startOf(process.pid) } satisfies Record<keyof Holder, unknown>),
  );
  try {
    for (;;) {
      // link() makes the lock with its content in one step, and fails where there is one.
      const isTaken = await link(mine, file).then(
        () => false,
        (error: NodeJS.ErrnoException) => {
          if (error.code === 'EEXIST') return true;
          throw error;
        },
      );
      if (!isTaken) return () => rm(file, { force: true });
      const holder = await readHolder(file);
      if (holder && (await startOf(holder.pid)) === holder.started)
        throw new Error(
          `${directory} is in use by the server with pid ${holder.pid}: stop it, or choose another STATE_DIR`,
        );
      await rm(file, { force: true });
    }
  } finally {
    await rm(mine, { force: true });
  }
}
