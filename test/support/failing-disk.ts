import * as fs from 'node:fs/promises';
import path from 'node:path';

type Run<T> = () => Promise<T>;
type RealWrite = (
  content: Buffer,
  offset: number,
  length: number,
  position: number,
) => Promise<{ bytesWritten: number }>;

/** An entry of a directory that changed, and would change back if the power failed now. */
interface Change {
  /** The change is safe when one of these was synced. */
  directories: string[];
  undo: Run<unknown>;
}

const never = new Promise<never>(() => {});
const ignore = async (promise: Promise<unknown>) => {
  await promise.catch(() => {});
};
const isThere = async (file: string) => (await fs.stat(file).catch(() => null)) !== null;

/**
 * A disk that stops at a chosen operation, as it does for a process that is killed, or when the power fails: what was not synced is lost
 * then. It works on real files; only syncs are not real. Its `functions` stand in for those of `node:fs/promises`.
 */
export class FailingDisk {
  /** How many operations have changed something. */
  operations = 0;
  private stopAt = Infinity;
  private isStopped = false;
  private running = 0;
  private sayStopped = () => {};
  private changes: Change[] = [];
  /** Bytes that were written and not synced, by inode. */
  private readonly unsynced = new Map<number, { start: number; end: number }[]>();
  private backups = 0;
  private gate: Promise<void> | null = null;

  /** @param backup a directory for what a failure brings back, on the same file system */
  constructor(private readonly backup: string) {}

  /**
   * Does that many operations more, and half of the next one.
   * @returns resolves when the disk has stopped
   */
  stopAfter(operations: number): Promise<void> {
    this.stopAt = this.operations + operations;
    return new Promise((resolve) => (this.sayStopped = resolve));
  }

  /** Works again; what was not synced stays. */
  restart(): void {
    this.stopAt = Infinity;
    this.isStopped = false;
    this.changes = [];
    this.unsynced.clear();
  }

  /** Works again; what was not synced below a directory is lost. */
  async restartWithoutPower(directory: string): Promise<void> {
    for (const { undo } of this.changes.toReversed()) await ignore(undo());
    for (const entry of await fs.readdir(directory, { recursive: true, withFileTypes: true })) {
      if (!entry.isFile()) continue;
      const file = path.join(entry.parentPath, entry.name);
      const { ino, size } = await fs.stat(file);
      const handle = await fs.open(file, 'r+');
      for (const { start, end } of this.unsynced.get(ino) ?? [])
        await handle.write(Buffer.alloc(Math.max(0, Math.min(end, size) - start)), 0, null, start);
      await handle.close();
    }
    this.restart();
  }

  /** Lets no operation begin until the function that it returns is called. */
  hold(): () => void {
    let release = () => {};
    this.gate = new Promise((resolve) => (release = resolve));
    return release;
  }

  get functions() {
    return {
      ...fs,
      open: this.open.bind(this),
      mkdir: this.mkdir.bind(this),
      rename: this.rename.bind(this),
      link: this.link.bind(this),
      rm: this.rm.bind(this),
      truncate: (...args: Parameters<typeof fs.truncate>) => this.operate(() => fs.truncate(...args)),
    };
  }

  private async operate<T>(run: Run<T>, half: Run<unknown> = async () => {}): Promise<T> {
    await this.gate;
    if (this.isStopped) return never;
    this.isStopped = this.operations++ === this.stopAt;
    const isLast = this.isStopped;
    this.running++;
    try {
      if (!isLast) return await run();
      await half();
    } finally {
      this.running--;
      if (this.isStopped && !this.running) this.sayStopped();
    }
    return never;
  }

  private changed(directories: string[], undo: Run<unknown>): void {
    this.changes.push({ directories, undo });
  }

  /** A link to what is about to go. */
  private async keep(file: string): Promise<string> {
    const kept = path.join(this.backup, String(this.backups++));
    await fs.link(file, kept);
    return kept;
  }

  private async open(file: string, flags: string | number = 'r', mode?: number): Promise<fs.FileHandle> {
    if (flags === 'r') return this.watch(await fs.open(file, flags), file);
    return this.operate(async () => {
      const isNew = !(await isThere(file));
      const handle = await fs.open(file, flags, mode);
      if (isNew) this.changed([path.dirname(file)], () => fs.rm(file));
      return this.watch(handle, file);
    });
  }

  private watch(handle: fs.FileHandle, file: string): fs.FileHandle {
    const realWrite = handle.write.bind(handle) as RealWrite;
    const sync = () => this.operate(() => this.sync(handle, file));
    const write = (buffer: Buffer, offset: number, length: number, position: number) =>
      this.operate(
        () => this.write(handle, realWrite, buffer.subarray(offset, offset + length), position),
        () => this.write(handle, realWrite, buffer.subarray(offset, offset + Math.floor(length / 2)), position),
      );
    const writeFile = (text: string) => write(Buffer.from(text), 0, Buffer.byteLength(text), 0);
    return Object.assign(handle, { sync, datasync: sync, write, writeFile });
  }

  private async write(
    handle: fs.FileHandle,
    realWrite: RealWrite,
    content: Buffer,
    position: number,
  ): Promise<{ bytesWritten: number }> {
    const { ino } = await handle.stat();
    this.unsynced.set(ino, [...(this.unsynced.get(ino) ?? []), { start: position, end: position + content.length }]);
    const { bytesWritten } = await realWrite(content, 0, content.length, position);
    return { bytesWritten };
  }

  private async sync(handle: fs.FileHandle, file: string): Promise<void> {
    this.unsynced.delete((await handle.stat()).ino);
    this.changes = this.changes.filter(({ directories }) => !directories.includes(file));
  }

  private mkdir(directory: string, options: { recursive: true }): Promise<string | undefined> {
    return this.operate(async () => {
      const first = await fs.mkdir(directory, options);
      if (first === undefined) return first;
      const names = path.relative(first, directory).split(path.sep).filter(Boolean);
      for (let depth = 0; depth <= names.length; depth++) {
        const made = path.join(first, ...names.slice(0, depth));
        this.changed([path.dirname(made)], () => fs.rm(made, { recursive: true }));
      }
      return first;
    });
  }

  private rename(from: string, to: string): Promise<void> {
    return this.operate(async () => {
      const kept = (await isThere(to)) ? await this.keep(to) : null;
      await fs.rename(from, to);
      this.changed([path.dirname(from), path.dirname(to)], async () => {
        await fs.rename(to, from);
        if (kept) await fs.link(kept, to);
      });
    });
  }

  private link(from: string, to: string): Promise<void> {
    return this.operate(async () => {
      await fs.link(from, to);
      this.changed([path.dirname(to)], () => fs.rm(to));
    });
  }

  private rm(file: string, options: { recursive?: boolean; force?: boolean } = {}): Promise<void> {
    return this.operate(async () => {
      const kept = !options.recursive && (await isThere(file)) ? await this.keep(file) : null;
      await fs.rm(file, options);
      if (kept) this.changed([path.dirname(file)], () => fs.link(kept, file));
    });
  }
}
