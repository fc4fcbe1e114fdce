import { statfs } from 'node:fs/promises';
import type { Place } from './config.js';
import { JobFailure } from './job-failure.js';

const MIB = 1024 * 1024;

/** What makes more space: on a machine its jobs share a disk, in a pod each has one of its own, of the size that its request names. */
const REMEDY: Record<Place, string> = {
  machine: 'free some space (old jobs, other files), or give the server a larger STATE_DIR, and start the job again',
  pod: 'start the job again with a larger build_env_size',
};

/** What the job record says where the disk is full. */
export function diskFull(place: Place): string {
  return `the disk on which the job works is full: ${REMEDY[place]}`;
}

/** The disk on which a job works. Other jobs, the database and the store may share it. */
export class Disk {
  constructor(
    private readonly directory: string,
    /** Bytes that stay free. */
    private readonly reserve: number,
    private readonly place: Place,
  ) {}

  /** What makes more space, as a reason tells it. */
  get remedy(): string {
    return REMEDY[this.place];
  }

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
   * @param bytes that are about to be written; 0 asks whether it is full already
   * @throws JobFailure
   */
  async expectFree(bytes: number): Promise<void> {
    const free = await this.free();
    if (free >= bytes) return;
    if (bytes === 0) throw new JobFailure(diskFull(this.place), { code: 'disk_full' });
    const [needed, left] = [bytes, Math.max(0, free)].map((size) => Math.ceil(size / MIB));
    throw new JobFailure(`the job needs ${needed} MiB on its disk, and ${left} MiB are free: ${this.remedy}`, {
      code: 'disk_full',
    });
  }
}
