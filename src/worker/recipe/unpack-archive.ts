import { link, lstat, mkdir, open, rm, symlink } from 'node:fs/promises';
import { basename, dirname } from 'node:path';
import { type Readable, Transform } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { extract, type Extract, type Header } from 'tar-stream';
import type { UnpackLimits } from '../../protocol/job-spec.js';
import { CommandFailed, type Commands } from '../commands.js';
import { openBeneath, type OpenPath, SystemCallFailed } from '../linux.js';
import { BadArchive, openArchive } from './archive-content.js';

/** A file of an archive: what its header says, and its content. */
type Entry = Extract extends AsyncIterable<infer Source> ? Source : never;

/** What an archive held. */
export interface Unpacked {
  entries: number;
  /** Bytes of all files. */
  bytes: number;
}

/** Bytes of headers and padding that an entry of a tar archive may take beside its content. */
const OVERHEAD = 8192;
/** Permissions, with the bits for set-id and sticky. */
const MODE = 0o7777;
/** What is below is copied into the new root by KIWI-NG, links as links: they are made for that root, and are never followed here. */
const OVERLAY = 'root/';

/**
 * Unpacks the archive of a recipe into a directory. Every entry is checked before anything is written, and every directory is opened
 * without following links: nothing can be written elsewhere, whatever the archive holds. All files belong to root.
 * @param target does not exist yet
 * @throws BadArchive where the archive is damaged, too large, or holds what a recipe must not
 */
export async function unpackArchive(
  archive: string,
  target: string,
  limits: UnpackLimits,
  commands: Commands,
): Promise<Unpacked> {
  await mkdir(target, { mode: 0o700 });
  const unpacking = new Unpacking(target, limits);
  const entries = extract();
  const fed = pipeline(await openArchive(archive, commands), atMost(limits), entries);
  // Where an entry is refused, that is what has to be known, not that the rest was not read.
  fed.catch(() => {});
  try {
    for await (const entry of entries) await unpacking.add(entry);
    await fed;
  } catch (error) {
    throw describeFailure(error);
  }
  unpacking.refuseLinksOut();
  return unpacking.unpacked;
}

/** Lets through what the largest archive allowed may have: what is wrong with a larger one must not take for ever to find out. */
function atMost({ maxBytes, maxEntries }: UnpackLimits): Transform {
  let left = maxBytes + maxEntries * OVERHEAD;
  return new Transform({
    transform(chunk: Buffer, _encoding, done) {
      left -= chunk.length;
      if (left < 0) done(tooLarge(maxBytes));
      else done(null, chunk);
    },
  });
}

function tooLarge(maxBytes: number): BadArchive {
  return new BadArchive(
    `holds more than ${Math.floor(maxBytes / 1024 / 1024)} MiB: take out what the recipe does not need, or raise JOB_RECIPE_MAX_MIB`,
  );
}

/** Errors of the parser and of the commands that decompress say that the archive is damaged. */
function describeFailure(error: unknown): unknown {
  if (error instanceof CommandFailed)
    return new BadArchive('is damaged: it cannot be decompressed to its end', { cause: error });
  const { code, message } = error as NodeJS.ErrnoException;
  if (error instanceof BadArchive || error instanceof SystemCallFailed || code) return error;
  return new BadArchive(`is damaged: ${message}`, { cause: error });
}

class Unpacking {
  readonly unpacked: Unpacked = { entries: 0, bytes: 0 };
  private readonly links: string[] = [];

  constructor(
    private readonly target: string,
    private readonly limits: UnpackLimits,
  ) {}

  async add(entry: Entry): Promise<void> {
    const { header } = entry;
    const path = pathOf(header.name);
    this.count(header);
    if (path !== '') await this.make(path, entry);
    entry.resume();
  }

  private count({ type, size }: Header): void {
    const { maxBytes, maxEntries } = this.limits;
    if (++this.unpacked.entries > maxEntries)
      throw new BadArchive(
        `holds more than ${maxEntries} files: take out what the recipe does not need, or raise JOB_RECIPE_MAX_ENTRIES`,
      );
    if (type === 'file' || type === 'contiguous-file') this.unpacked.bytes += size ?? 0;
    if (this.unpacked.bytes > maxBytes) throw tooLarge(maxBytes);
  }

  private async make(path: string, entry: Entry): Promise<void> {
    const { header } = entry;
    switch (header.type) {
      case 'directory':
        return this.makeDirectory(path, header);
      case 'file':
      case 'contiguous-file':
        return this.inParent(path, (place) => writeFile(place, entry));
      case 'symlink':
        this.links.push(path);
        return this.inParent(path, (place) => replace(place, () => symlink(header.linkname ?? '', place)));
      case 'link':
        return this.makeHardLink(path, header);
      default:
        throw new BadArchive(`holds ${quoted(path)}, which is a ${header.type ?? 'file of an unknown kind'}`);
    }
  }

  private async makeDirectory(path: string, { mode }: Header): Promise<void> {
    const directory = await this.openDirectory(path);
    try {
      const handle = await open(directory.path, 'r');
      await handle.chmod((mode ?? 0o755) & MODE).finally(() => handle.close());
    } finally {
      directory.close();
    }
  }

  /** Only to a file that was unpacked before, by its own name: a link to anything else could lead anywhere. */
  private async makeHardLink(path: string, { linkname }: Header): Promise<void> {
    const source = pathOf(linkname ?? '');
    await this.inParent(source, async (from) => {
      const found = await lstat(from).catch(() => null);
      if (!found?.isFile())
        throw new BadArchive(`holds ${quoted(path)}, a link to ${quoted(source)}, which is no file before it`);
      await this.inParent(path, (place) => replace(place, () => link(from, place)));
    });
  }

  /** Does something to a name in its directory, which is held open. */
  private async inParent(path: string, work: (place: string) => Promise<void>): Promise<void> {
    const parent = await this.openDirectory(dirname(path));
    try {
      await work(`${parent.path}/${basename(path)}`);
    } finally {
      parent.close();
    }
  }

  /** Opens a directory, and makes it and those above it where they are missing. */
  private async openDirectory(path: string): Promise<OpenPath> {
    try {
      return openBeneath(this.target, path, 'directory', 'refuse');
    } catch (error) {
      if (!(error instanceof SystemCallFailed)) throw error;
      if (error.code !== 'ENOENT') throw asBadPath(error, path);
    }
    await this.inParent(path, (place) => mkdir(place, { mode: 0o755 }));
    return openBeneath(this.target, path, 'directory', 'refuse');
  }

  /** Links may lead to anything in the recipe, also where that is missing, but not out of it. */
  refuseLinksOut(): void {
    for (const path of this.links.filter((name) => !name.startsWith(OVERLAY))) {
      try {
        openBeneath(this.target, path, 'any', 'follow').close();
      } catch (error) {
        if (!(error instanceof SystemCallFailed)) throw error;
        if (error.code === 'EXDEV')
          throw new BadArchive(`holds the link ${quoted(path)}, which leads out of the recipe`);
      }
    }
  }
}

/** A name of an archive as a path below the recipe; empty for the recipe itself. */
function pathOf(name: string): string {
  const parts = name.split('/').filter((part) => part !== '' && part !== '.');
  if (name.startsWith('/')) throw new BadArchive(`holds the absolute path ${quoted(name)}`);
  if (parts.includes('..')) throw new BadArchive(`holds the path ${quoted(name)}, which may lead out of the recipe`);
  if (name.includes('\0')) throw new BadArchive('holds a name with a NUL character');
  return parts.join('/');
}

function asBadPath(error: SystemCallFailed, path: string): unknown {
  if (error.code === 'ELOOP')
    return new BadArchive(`holds files below ${quoted(path)}, which is a link: files must stand in directories`, {
      cause: error,
    });
  if (error.code === 'ENOTDIR')
    return new BadArchive(`holds files below ${quoted(path)}, which is no directory`, { cause: error });
  if (error.code === 'ENAMETOOLONG') return new BadArchive('holds a name that is too long', { cause: error });
  return error;
}

async function writeFile(place: string, entry: Entry): Promise<void> {
  const { mode, mtime } = entry.header;
  await removeOld(place);
  const file = await open(place, 'wx', 0o600);
  try {
    for await (const chunk of entry as unknown as Readable) await file.write(chunk as Buffer);
    await file.chmod((mode ?? 0o644) & MODE);
    const time = mtime && !Number.isNaN(mtime.getTime()) ? mtime : new Date();
    await file.utimes(time, time);
  } finally {
    await file.close();
  }
}

async function replace(place: string, make: () => Promise<void>): Promise<void> {
  await removeOld(place);
  await make();
}

/** A later entry takes the place of an earlier one of its name, as tar does it; never that of a directory. */
async function removeOld(place: string): Promise<void> {
  const old = await lstat(place).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return null;
    throw error.code === 'ENAMETOOLONG' ? new BadArchive('holds a name that is too long', { cause: error }) : error;
  });
  if (old?.isDirectory())
    throw new BadArchive(`holds ${quoted(basename(place))} both as a directory and as something else`);
  if (old) await rm(place);
}

/** A name as a reason quotes it. */
function quoted(name: string): string {
  return JSON.stringify(name.length > 200 ? `${name.slice(0, 200)}…` : name);
}
