import {
  chmodSync,
  closeSync,
  ftruncateSync,
  lchownSync,
  linkSync,
  lstatSync,
  mkdirSync,
  openSync,
  rmSync,
  type Stats,
  symlinkSync,
  writeSync,
} from 'node:fs';
import { basename, dirname } from 'node:path';
import type { UnpackLimits } from '../../protocol/job-spec.js';
import { CommandFailed, type Commands } from '../commands.js';
import { makeNode, openBeneath, type OpenPath, setExtendedAttribute, setTimes, SystemCallFailed } from '../linux.js';
import { BadArchive } from './bad-archive.js';
import { openArchive } from './archive-content.js';
import { readTar, type TarEntry, type TarHeader } from './tar-reader.js';

/** What an archive held. */
export interface Unpacked {
  entries: number;
  /** Bytes of all files, without holes. */
  bytes: number;
  /** Extended attributes that could not be set, or that no image can hold. */
  droppedXattrs: number;
}

/** What an archive may hold, and what of it is kept. */
export interface UnpackPolicy {
  limits: UnpackLimits;
  /** What to do where it holds more: completes "holds more than …: ". */
  remedy: { bytes: string; entries: string };
  /** Whether owners, extended attributes, devices and fifos are kept; otherwise all belongs to root, and devices and fifos are refused. */
  keepsAll: boolean;
  /** Prefixes of names of extended attributes that are kept. */
  xattrs: readonly string[];
}

/** Bytes of headers and padding that an entry of a tar archive may take beside its content. */
const OVERHEAD = 8192;
/** Directories that are held open: most entries stand beside the one before. */
const OPEN_DIRECTORIES = 64;
/** Most bytes that a file may have with its holes: a disk takes more, but whoever packs it reads them all. */
const APPARENT_LIMIT = 2 ** 40;

/**
 * Unpacks a tar archive into a directory. Every entry is checked before anything is written, and every directory is opened without
 * following links: nothing can be written elsewhere, whatever the archive holds. Links are made as they are, and are never followed.
 * @param target an empty directory
 * @throws BadArchive where the archive is damaged, too large, or holds what it must not
 */
export async function unpackTar(
  archive: string,
  target: string,
  policy: UnpackPolicy,
  commands: Commands,
): Promise<Unpacking> {
  const unpacking = new Unpacking(target, policy);
  const stream = await openArchive(archive, commands);
  try {
    for await (const entry of readTar(atMost(stream, policy))) await unpacking.add(entry);
    unpacking.finish();
    return unpacking;
  } catch (error) {
    throw describeFailure(error);
  } finally {
    stream.destroy();
    unpacking.close();
  }
}

/** Lets through what the largest archive allowed may have: what is wrong with a larger one must not take for ever to find out. */
async function* atMost(stream: AsyncIterable<Buffer>, policy: UnpackPolicy): AsyncGenerator<Buffer, void, void> {
  const { maxBytes, maxEntries } = policy.limits;
  let left = maxBytes + maxEntries * OVERHEAD;
  for await (const chunk of stream) {
    left -= chunk.length;
    if (left < 0) throw tooLarge(policy);
    yield chunk;
  }
}

function tooLarge({ limits, remedy }: UnpackPolicy): BadArchive {
  return new BadArchive(`holds more than ${Math.floor(limits.maxBytes / 1024 / 1024)} MiB: ${remedy.bytes}`);
}

/** Errors of the commands that decompress say that the archive is damaged. */
function describeFailure(error: unknown): unknown {
  if (error instanceof CommandFailed)
    return new BadArchive('is damaged: it cannot be decompressed to its end', { cause: error });
  if ((error as NodeJS.ErrnoException).code === 'ENAMETOOLONG')
    return new BadArchive('holds a name that is too long', { cause: error });
  return error;
}

/** An archive on its way into a directory. */
export class Unpacking {
  readonly unpacked: Unpacked = { entries: 0, bytes: 0, droppedXattrs: 0 };
  /** Paths of symlinks, latin1. */
  readonly symlinks: string[] = [];
  /** Directories and their times: what is put into them later would change those. */
  private readonly times = new Map<string, bigint>();
  /** Directories that are held open, by their paths; the one that was used last is the last. */
  private readonly open = new Map<string, OpenPath>();

  constructor(
    private readonly target: string,
    private readonly policy: UnpackPolicy,
  ) {}

  async add(entry: TarEntry): Promise<void> {
    const path = pathOf(entry.name);
    this.count(entry);
    if (entry.kind === 'directory') this.makeDirectory(path, entry);
    else if (path === '') throw new BadArchive(`holds its own root as a ${entry.kind}`);
    else await this.make(path, entry);
  }

  /** Sets the times of directories, when nothing is put into them any more. */
  finish(): void {
    for (const [path, time] of this.times) setTimes(this.place(path), time);
  }

  close(): void {
    for (const directory of this.open.values()) directory.close();
    this.open.clear();
  }

  private count({ kind, stored, size, name }: TarEntry): void {
    const { limits, remedy } = this.policy;
    if (++this.unpacked.entries > limits.maxEntries)
      throw new BadArchive(`holds more than ${limits.maxEntries} files: ${remedy.entries}`);
    if (kind === 'file') this.unpacked.bytes += stored;
    if (this.unpacked.bytes > limits.maxBytes) throw tooLarge(this.policy);
    if (size > APPARENT_LIMIT)
      throw new BadArchive(`holds ${quoted(name)}, a file of ${size} bytes, most of them holes`);
  }

  private async make(path: string, entry: TarEntry): Promise<void> {
    if (entry.kind === 'link') return this.makeHardLink(path, entry.linkname);
    const place = this.place(path);
    if (entry.kind === 'file') return this.makeFile(place, entry);
    if (entry.kind === 'symlink') {
      if (entry.linkname === '' || entry.linkname.includes('\0'))
        throw new BadArchive(`holds the link ${quoted(path)}, whose target is no path`);
      this.symlinks.push(path);
      removeOld(place);
      symlinkSync(bytes(entry.linkname), place);
    } else {
      if (!this.policy.keepsAll) throw new BadArchive(`holds ${quoted(path)}, which is a ${entry.kind}`);
      makeSpecial(path, place, entry);
    }
    this.setAttributes(place, entry);
  }

  private makeDirectory(path: string, header: TarHeader): void {
    const place = bytes(`${this.directory(path).path}/.`);
    this.times.set(path, header.mtime);
    this.setAttributes(place, header);
  }

  /** Only to what was unpacked before, by its own name: a link to anything else could lead anywhere. */
  private makeHardLink(path: string, linkname: string): void {
    const source = pathOf(linkname);
    // Makes directories that are missing: then two can be held open at once, however deep.
    this.place(path);
    const from = this.place(source);
    const found = lstat(from);
    const isAllowed = this.policy.keepsAll ? found && !found.isDirectory() : found?.isFile();
    if (!isAllowed)
      throw new BadArchive(`holds ${quoted(path)}, a link to ${quoted(source)}, which is no file before it`);
    // What is a link to itself is there.
    if (source === path) return;
    const place = this.place(path);
    removeOld(place);
    linkSync(from, place);
  }

  private async makeFile(place: Buffer, entry: TarEntry): Promise<void> {
    removeOld(place);
    const file = openSync(place, 'wx', 0o600);
    try {
      for await (const { position, bytes: content } of entry.content()) writeFully(file, content, position);
      ftruncateSync(file, entry.size);
    } finally {
      closeSync(file);
    }
    this.setAttributes(place, entry);
  }

  /** Owner, mode, extended attributes, times: in this order, since each undoes some of those behind it. */
  private setAttributes(place: Buffer, { kind, uid, gid, mode, mtime, xattrs }: TarHeader): void {
    if (this.policy.keepsAll) lchownSync(place, uid, gid);
    if (kind !== 'symlink') chmodSync(place, mode);
    if (this.policy.keepsAll) for (const { name, value } of xattrs) this.setXattr(place, name, value);
    setTimes(place, mtime);
  }

  private setXattr(place: Buffer, name: string, value: Buffer): void {
    try {
      if (!this.policy.xattrs.some((prefix) => name.startsWith(prefix))) this.unpacked.droppedXattrs++;
      else setExtendedAttribute(place, name, value);
    } catch (error) {
      // Some only the machine's own root may set.
      if (!(error instanceof SystemCallFailed && ['EPERM', 'EOPNOTSUPP'].includes(error.code))) throw error;
      this.unpacked.droppedXattrs++;
    }
  }

  /** The name of something in its directory, which is held open. */
  private place(path: string): Buffer {
    return bytes(`${this.directory(dirname(path)).path}/${basename(path) || '.'}`);
  }

  /** Opens a directory, and makes it and those above it where they are missing. No directory is ever removed, so it stays what it is. */
  private directory(path: string): OpenPath {
    const opened = this.open.get(path) ?? this.openDirectory(path);
    this.open.delete(path);
    this.open.set(path, opened);
    if (this.open.size > OPEN_DIRECTORIES) {
      const [oldest, place] = this.open.entries().next().value!;
      place.close();
      this.open.delete(oldest);
    }
    return opened;
  }

  private openDirectory(path: string): OpenPath {
    const openOnce = () => openBeneath(this.target, bytes(path || '.'), 'directory', 'refuse');
    try {
      return openOnce();
    } catch (error) {
      if (!(error instanceof SystemCallFailed)) throw error;
      if (error.code !== 'ENOENT') throw asBadPath(error, path);
    }
    const place = this.place(path);
    mkdirSync(place);
    chmodSync(place, 0o755);
    return openOnce();
  }
}

function makeSpecial(path: string, place: Buffer, { kind, ...device }: TarHeader): void {
  const { major, minor } = kind === 'fifo' ? { major: 0, minor: 0 } : device;
  if (major >= 2 ** 12 || minor >= 2 ** 20)
    throw new BadArchive(`holds ${quoted(path)}, a device with an impossible number`);
  removeOld(place);
  makeNode(place, kind as 'block device' | 'character device' | 'fifo', major, minor);
}

function writeFully(file: number, content: Buffer, position: number): void {
  for (let done = 0; done < content.length;)
    done += writeSync(file, content, done, content.length - done, position + done);
}

/** A name of an archive as a path below the target; empty for the target itself. */
function pathOf(name: string): string {
  const parts = name.split('/').filter((part) => part !== '' && part !== '.');
  if (name.startsWith('/')) throw new BadArchive(`holds the absolute path ${quoted(name)}`);
  if (parts.includes('..')) throw new BadArchive(`holds the path ${quoted(name)}, which may lead out of it`);
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
  return error;
}

/** A later entry takes the place of an earlier one of its name, as tar does it; never that of a directory. */
function removeOld(place: Buffer): void {
  const old = lstat(place);
  if (old?.isDirectory())
    throw new BadArchive(
      `holds ${quoted(basename(place.toString('latin1')))} both as a directory and as something else`,
    );
  if (old) rmSync(place);
}

function lstat(place: Buffer): Stats | undefined {
  return lstatSync(place, { throwIfNoEntry: false });
}

function bytes(path: string): Buffer {
  return Buffer.from(path, 'latin1');
}

/** A name of an archive as a reason quotes it. */
export function quoted(name: string): string {
  const text = bytes(name).toString();
  return JSON.stringify(text.length > 200 ? `${text.slice(0, 200)}…` : text);
}
