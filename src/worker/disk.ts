import { statfs } from 'node:fs/promises';
import { JobFailure } from './job-failure.js';

const MIB = 1024 * 1024;

/** The disk on which a job works. Other jobs, the database and the store may share it. */
export class Disk {
  constructor(
    private readonly directory: string,
    /** Bytes that stay free. */
    private readonly reserve: number,
  ) {}

  /** Bytes that may still be written. */
  async free(): Promise<number> {
    const { bavail, bsize } = await statfs(this.directory);
    return bavail * bsize - this.reserve;
  }

  /** Files that may still be made; infinite where the file system does not count them. */
  async freeFiles(): Promise<number> {
    const { files, ffree } = await statfs(this.directory);
    return files === 0 ? Number.POSITIVE_INFINITY : ffree;
  }

  /**
   * Refuses to begin what would fill the disk.
   * @param bytes that are about to be written
   * @throws JobFailure
   */
  async expectFree(bytes: number): Promise<void> {
    const free = await this.free();
    if (free >= bytes) return;
    const [needed, left] = [bytes, Math.max(0, free)].map((size) => Math.ceil(size / MIB));
    throw new JobFailure(
      `the job needs ${needed} MiB on the disk of STATE_DIR, and ${left} MiB are free: free some space, and start the job again`,
      { code: 'disk_full' },
    );
  }
}
