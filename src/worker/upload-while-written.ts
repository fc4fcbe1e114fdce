import { createHash } from 'node:crypto';
import { type FileHandle, open, stat } from 'node:fs/promises';
import {
  type ArtifactStore,
  ArtifactStoreFailure,
  type ArtifactUpload,
  type StoredArtifact,
} from '../artifacts/artifact-store.js';
import { choosePartSize, MAX_PARTS, partRanges } from '../artifacts/part-layout.js';
import type { ArtifactLocation } from '../protocol/artifact-link.js';
import type { JobProgress } from '../protocol/job-report.js';
import { isMissing } from './in-root.js';

const MIB = 1024 * 1024;
/** Bytes before the end of a growing file that its writer may still change. */
const MARGIN = MIB;
/** Parts on their way at once; each takes the memory of a part. */
const PARALLEL = 4;
/** Milliseconds between two looks at how far the file has grown. */
const INTERVAL = 100;
/** Milliseconds between two reports of progress. */
const PROGRESS_INTERVAL = 2000;
/** How much larger than the source a new image may become before parts run out. */
const GROWTH = 16;

export interface GrowingFile {
  store: ArtifactStore;
  location: ArtifactLocation;
  metadata: Record<string, string>;
  /** Path; the file may not be there yet. Its writer goes forward, and changes nothing behind but the first part. */
  file: string;
  /** Settles when the file is whole; where it rejects, nothing is stored. */
  written: Promise<unknown>;
  /** Bytes that the file may have; a guess, which decides on the size of parts. */
  expectedSize: number;
  onProgress: (progress: JobProgress) => Promise<void>;
}

/**
 * Stores a file that is still being written: its parts follow the writer, the first goes last. Then the whole file is read once more, for
 * its md5, and to send again whatever has changed since it was sent.
 * @throws what `written` rejects with, ArtifactStoreFailure; nothing stays in the store
 */
export async function uploadWhileWritten(growing: GrowingFile): Promise<StoredArtifact> {
  const upload = new FollowingUpload(growing);
  try {
    return await upload.run();
  } catch (error) {
    // The failure is what has to be known; what cannot be removed now, the server removes when it releases the job.
    await upload.abort().catch(() => {});
    throw error;
  }
}

class FollowingUpload {
  private readonly partSize: number;
  private readonly sent = new Map<number, string>();
  private readonly sending = new Set<Promise<void>>();
  private upload: ArtifactUpload | null = null;
  private failure: unknown = null;
  private told = Date.now();

  constructor(private readonly growing: GrowingFile) {
    this.partSize = choosePartSize(growing.expectedSize * GROWTH);
  }

  async run(): Promise<StoredArtifact> {
    const { file, written, store, location, metadata } = this.growing;
    await this.follow();
    await written;
    const { size } = await stat(file);
    if (!this.upload && size <= this.partSize) return store.put(location, { body: { file }, metadata });
    const handle = await open(file, 'r');
    try {
      const md5 = await this.sendRest(handle, size);
      return await this.upload!.complete(md5);
    } finally {
      await handle.close();
    }
  }

  async abort(): Promise<void> {
    await Promise.allSettled(this.sending);
    await this.upload?.abort();
  }

  /** Sends all parts but the first while the file grows; returns when it does not grow any more. */
  private async follow(): Promise<void> {
    const state = { isWritten: false };
    const setWritten = () => void (state.isWritten = true);
    const end = this.growing.written.then(setWritten, setWritten);
    for (let next = 2; !state.isWritten;) {
      const size = await sizeOf(this.growing.file);
      for (; next * this.partSize + MARGIN <= size; next++) await this.send(next);
      await this.tell({ stage: 'pack', done: size, total: null });
      await Promise.race([end, new Promise((resolve) => setTimeout(resolve, INTERVAL))]);
    }
    await this.drain();
  }

  /** Reads the whole file: sends what was not sent, or has changed since. Returns the md5 of the whole. */
  private async sendRest(handle: FileHandle, size: number): Promise<string> {
    const whole = createHash('md5');
    const ranges = partRanges(size, this.partSize);
    if (ranges.length > MAX_PARTS)
      throw new ArtifactStoreFailure(`an artifact of ${size} bytes needs more parts than S3 takes`);
    for (const [index, { start, end }] of ranges.entries()) {
      const content = await readFully(handle, start, end - start + 1);
      whole.update(content);
      const md5 = createHash('md5').update(content).digest('hex');
      if (this.sent.get(index + 1) !== md5) await this.begin(index + 1, content, md5);
      await this.tell({ stage: 'upload', done: end + 1, total: size });
    }
    await this.drain();
    return whole.digest('hex');
  }

  private async send(number: number): Promise<void> {
    const handle = await open(this.growing.file, 'r');
    try {
      const content = await readFully(handle, (number - 1) * this.partSize, this.partSize);
      await this.begin(number, content, createHash('md5').update(content).digest('hex'));
    } finally {
      await handle.close();
    }
  }

  /** Sends a part; returns when there is room for another. */
  private async begin(number: number, content: Buffer, md5: string): Promise<void> {
    this.upload ??= await this.growing.store.upload(this.growing.location, this.growing.metadata);
    const sending: Promise<void> = this.upload
      .part(number, content)
      .then(() => void this.sent.set(number, md5))
      .catch((error: unknown) => {
        this.failure ??= error;
      })
      .finally(() => this.sending.delete(sending));
    this.sending.add(sending);
    while (this.sending.size >= PARALLEL) await Promise.race(this.sending);
    if (this.failure) throw this.failure;
  }

  private async drain(): Promise<void> {
    await Promise.all(this.sending);
    if (this.failure) throw this.failure;
  }

  private async tell(progress: JobProgress): Promise<void> {
    if (Date.now() - this.told < PROGRESS_INTERVAL) return;
    this.told = Date.now();
    await this.growing.onProgress(progress);
  }
}

async function sizeOf(file: string): Promise<number> {
  return stat(file).then(
    ({ size }) => size,
    (error: unknown) => {
      if (isMissing(error)) return 0;
      throw error;
    },
  );
}

async function readFully(handle: FileHandle, position: number, length: number): Promise<Buffer> {
  const content = Buffer.allocUnsafe(length);
  for (let done = 0; done < length;) {
    const { bytesRead } = await handle.read(content, done, length - done, position + done);
    if (!bytesRead) throw new Error(`the file ended ${length - done} bytes too early`);
    done += bytesRead;
  }
  return content;
}
