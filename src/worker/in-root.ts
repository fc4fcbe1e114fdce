import { randomUUID } from 'node:crypto';
import type { Stats } from 'node:fs';
import { constants, type FileHandle, mkdir, open, readdir, readlink, rename, rm } from 'node:fs/promises';
import { basename, dirname } from 'node:path';

/** From linux/fcntl.h, the same on x86_64 and aarch64; Node does not name it. Opens a place without reading or following it. */
const O_PATH = 0o10000000;
/** Links that one path may lead through, as in the kernel. */
const MAX_LINKS = 40;
const { O_CREAT, O_DIRECTORY, O_EXCL, O_NOFOLLOW, O_NONBLOCK, O_RDONLY, O_WRONLY } = constants;

/** A path leads nowhere inside of the root. */
export class NotInRoot extends Error {
  constructor(
    readonly code: 'ENOENT' | 'ENOTDIR' | 'ELOOP' | 'EINVAL',
    /** As it was asked for. */
    readonly path: string,
    what: string,
  ) {
    super(`${JSON.stringify(path)} ${what}`);
    this.name = 'NotInRoot';
  }
}

/** Whether the error says that a path is not there: missing, a link to nothing, or a loop of links. */
export function isMissingInRoot(error: unknown): boolean {
  return error instanceof NotInRoot && error.code !== 'EINVAL';
}

/**
 * A walk through a tree that somebody else made. Each step opens one name in a directory that is held open, and never follows a link by
 * itself: links are read and walked from the root of the tree, so that neither a link nor a change meanwhile leads out of it.
 */
class Walk {
  private readonly handles: FileHandle[] = [];
  private readonly names: string[] = [];
  private links = 0;
  /** What the last step found where it is no directory. */
  private found: { handle: FileHandle; name: string; stats: Stats } | null = null;

  private constructor(private readonly asked: string) {}

  /** Walks along a path and hands the end of it to `use`. With `make`, missing directories are made. */
  static async to<T>(
    root: string,
    path: string,
    use: (walk: Walk) => Promise<T>,
    { make = false }: { make?: boolean } = {},
  ): Promise<T> {
    const walk = new Walk(path);
    try {
      walk.handles.push(await open(root, O_PATH | O_DIRECTORY));
      await walk.along(path, make);
      return await use(walk);
    } finally {
      await walk.close();
    }
  }

  /** Names below the root that lead here without a link. */
  get place(): string[] {
    return this.found ? [...this.names, this.found.name] : this.names;
  }

  /** A path to the directory that was reached, which stays the same directory whatever is renamed. */
  get directory(): string {
    if (this.found) throw this.refuse('ENOTDIR', 'is not a directory');
    return this.at(this.handles.at(-1)!);
  }

  /** A path to the regular file that was reached. */
  get file(): string {
    if (!this.found?.stats.isFile()) throw this.refuse('EINVAL', 'is not a regular file');
    return this.at(this.found.handle);
  }

  private async along(path: string, make: boolean): Promise<void> {
    const todo = path.split('/');
    while (todo.length) {
      const name = todo.shift()!;
      if (this.found) throw this.refuse('ENOTDIR', 'leads through something that is not a directory');
      if (name === '..') await this.leave();
      else if (name && name !== '.') todo.unshift(...(await this.enter(name, make)));
    }
  }

  /** Steps to a name. Returns the names that a link adds to the way. */
  private async enter(name: string, make: boolean): Promise<string[]> {
    const handle = await this.open(name, make);
    const stats = await handle.stat();
    if (stats.isSymbolicLink()) {
      await handle.close();
      return this.readLink(name);
    }
    if (stats.isDirectory()) {
      this.handles.push(handle);
      this.names.push(name);
    } else this.found = { handle, name, stats };
    return [];
  }

  private async open(name: string, make: boolean): Promise<FileHandle> {
    const path = `${this.directory}/${name}`;
    try {
      return await open(path, O_PATH | O_NOFOLLOW);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
      if (!make) throw this.refuse('ENOENT', 'does not exist');
      await mkdir(path, { mode: 0o755 });
      return open(path, O_PATH | O_NOFOLLOW);
    }
  }

  private async readLink(name: string): Promise<string[]> {
    if (++this.links > MAX_LINKS) throw this.refuse('ELOOP', 'leads through too many links');
    const target = await readlink(`${this.directory}/${name}`);
    if (target.startsWith('/')) while (this.handles.length > 1) await this.leave();
    return target.split('/');
  }

  /** Steps to the directory above. Above the root is the root. */
  private async leave(): Promise<void> {
    if (this.handles.length === 1) return;
    this.names.pop();
    await this.handles.pop()!.close();
  }

  private at(handle: FileHandle): string {
    return `/proc/self/fd/${handle.fd}`;
  }

  private refuse(code: NotInRoot['code'], what: string): NotInRoot {
    return new NotInRoot(code, this.asked, what);
  }

  private async close(): Promise<void> {
    await Promise.all([...this.handles, ...(this.found ? [this.found.handle] : [])].map((handle) => handle.close()));
  }
}

/**
 * The path, without links below the root, of what a path means to somebody whose `/` is the root: links are followed, absolute ones and
 * `..` too, but never out of the root. Somebody who changes the tree meanwhile can make the answer stale: where that may be, use the
 * functions below, which act on what they found.
 * @throws NotInRoot where it does not exist
 */
export async function resolveInRoot(root: string, path: string): Promise<string> {
  return Walk.to(root, path, (walk) => Promise.resolve([root, ...walk.place].join('/')));
}

/**
 * Opens a regular file of a root for reading. The caller closes it.
 * @throws NotInRoot where it does not exist, or is something else (EINVAL)
 */
export async function openInRoot(root: string, path: string): Promise<FileHandle> {
  return Walk.to(root, path, (walk) => open(walk.file, O_RDONLY | O_NONBLOCK));
}

/**
 * Names in a directory of a root.
 * @throws NotInRoot
 */
export async function listInRoot(root: string, path: string): Promise<string[]> {
  return Walk.to(root, path, (walk) => readdir(walk.directory));
}

/**
 * Puts a file into a root, in place of whatever has its name; a link of that name is replaced, not followed. Missing directories are made.
 * The file is whole or absent after a crash.
 * @throws NotInRoot where something on the way is not a directory
 */
export async function writeInRoot(root: string, path: string, content: string | Buffer, mode: number): Promise<void> {
  await Walk.to(root, dirname(path), (walk) => writeWhole(walk.directory, basename(path), content, mode), {
    make: true,
  });
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
  await Walk.to(root, dirname(path), (walk) =>
    rm(`${walk.directory}/${basename(path)}`, { recursive: true, force: true }),
  ).catch((error: unknown) => {
    if (!isMissingInRoot(error)) throw error;
  });
}
