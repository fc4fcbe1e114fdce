import { closeSync, constants, ftruncateSync, openSync, readFileSync, writeSync } from 'node:fs';
import { constants as osConstants } from 'node:os';
import koffi from 'koffi';

const flock = koffi.load(null).func('flock', 'int', ['int', 'int']);

/** Operations of flock(2). */
const LOCK_EX = 2;
const LOCK_NB = 4;

/**
 * Takes a lock file that is this process's alone, without waiting.
 *
 * The lock is flock(2) on a file that this process keeps open. The kernel gives it up when the process ends, however it ends: there is no
 * stale lock, so nothing to take over and no race in doing so. It is bound to the file, not to a pid or a network namespace, so it also
 * holds between containers that share the directory. The file itself stays: who removes a lock file lets two processes lock two files of
 * the same name. Its content, the pid of the holder, is for people.
 *
 * @returns function that gives the lock back
 * @throws Error that names the directory and the holder
 */
export function lockDirectory(directory: string, file: string): () => void {
  // A number, not a FileHandle: the lock would end when that is collected as garbage.
  const fd = openSync(file, constants.O_RDWR | constants.O_CREAT, 0o600);
  try {
    takeLock(fd, directory);
    ftruncateSync(fd);
    writeSync(fd, `${process.pid}\n`, 0);
  } catch (error) {
    closeSync(fd);
    throw error;
  }
  return () => closeSync(fd);
}

function takeLock(fd: number, directory: string): void {
  if (flock(fd, LOCK_EX | LOCK_NB) === 0) return;
  const errno = koffi.errno();
  if (errno !== osConstants.errno.EWOULDBLOCK)
    throw new Error(
      `the file system of ${directory} has no locks (errno ${errno}): choose a STATE_DIR on a local disk`,
    );
  // A holder that has just taken the lock may not have written its pid yet.
  const pid = readFileSync(fd, 'utf8').trim();
  throw new Error(
    `${directory} is in use by the server${pid && ` with pid ${pid}`}: stop it, or choose another STATE_DIR`,
  );
}
