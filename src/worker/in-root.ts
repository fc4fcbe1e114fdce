import { randomUUID } from 'node:crypto';
import { constants, type FileHandle, mkdir, open, readdir, rename, rm } from 'node:fs/promises';
import { basename, dirname } from 'node:path';
import { findIn, openIn, type OpenPath } from './linux.js';

/*
 * Work on files of a tree that somebody else made, as a process would do it whose `/` is that tree: links are followed, absolute ones and
 * `..` too, but never out of it. Everything is done in a directory, or to a file, that is held open, so that nobody can swap it meanwhile.
 */

const { O_CREAT, O_EXCL, O_NOFOLLOW, O_NONBLOCK, O_RDONLY, O_WRONLY } = constants;

/** What a path leads to is not a regular file. */
export class NotAFile extends Error {
  constructor(path: string) {
    super(`${JSON.stringify(path)} is not a regular file`);
    this.name = 'NotAFile';
  }
}

/** Whether an error says that nothing is there: the name is missing, a link leads nowhere, or links lead in a circle. */
export function isMissing(error: unknown): boolean {
  return ['ENOENT', 'ENOTDIR', 'ELOOP'].includes((error as NodeJS.ErrnoException | null)?.code ?? '');
}

async function within<T>(place: OpenPath, use: (path: string) => Promise<T>): Promise<T> {
  try {
    return await use(place.path);
  } finally {
    place.close();
  }
}

/**
 * Opens a regular file of a root for reading. The caller closes it.
 * @throws an error with ENOENT, ENOTDIR or ELOOP where it does not exist; NotAFile
 */
export async function openInRoot(root: string, path: string): Promise<FileHandle> {
  const place = openIn(root, path, 'any');
  // The kind is looked at before the file is opened: opening a device has effects, opening a fifo waits.
  return within(place, async (found) => {
    if (!place.stat().isFile()) throw new NotAFile(path);
    return open(found, O_RDONLY | O_NONBLOCK);
  });
}

/**
 * Names in a directory of a root.
 * @throws an error with ENOENT, ENOTDIR or ELOOP
 */
export async function listInRoot(root: string, path: string): Promise<string[]> {
  return within(openIn(root, path, 'directory'), (directory) => readdir(directory));
}

/**
 * Puts a file into a root, in place of whatever has its name; a link of that name is replaced, not followed. Missing directories are made.
 * The file is whole or absent after a crash.
 * @throws an error with EEXIST where something on the way is not a directory, or a link to nothing; EISDIR where the file is a directory
 */
export async function writeInRoot(root: string, path: string, content: string | Buffer, mode: number): Promise<void> {
  const directory = dirname(path);
  await makeDirectories(root, directory);
  await within(openIn(root, directory, 'directory'), (place) => writeWhole(place, basename(path), content, mode));
}

async function makeDirectories(root: string, path: string): Promise<void> {
  const found = findIn(root, path, 'directory');
  if (found) return found.close();
  await makeDirectories(root, dirname(path));
  await within(openIn(root, dirname(path), 'directory'), (parent) => mkdir(`${parent}/${basename(path)}`, 0o755));
}

async function writeWhole(directory: string, name: string, content: string | Buffer, mode: number): Promise<void> {
  const temporary = `${directory}/.${randomUUID()}`;
  const handle = await open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, mode);
  try {
    await handle.writeFile(content);
    // The mode of open is narrowed by the umask.
    await handle.chmod(mode);
    await rename(temporary, `${directory}/${name}`);
  } catch (error) {
    await rm(temporary, { force: true });
    throw error;
  } finally {
    await handle.close();
  }
}

/** Removes what has this name in a root; of a link the link itself. Missing is no error. */
export async function removeInRoot(root: string, path: string): Promise<void> {
  const directory = findIn(root, dirname(path), 'directory');
  if (!directory) return;
  await within(directory, (place) => rm(`${place}/${basename(path)}`, { recursive: true, force: true }));
}
