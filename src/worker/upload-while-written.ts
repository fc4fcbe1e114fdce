import { createHash } from 'node:crypto';
import { type FileHandle, open, stat } from 'node:fs/promises';
import {
  type ArtifactStore,
  ArtifactStoreFailure,
  type ArtifactUpload,
  NoSuchArtifact,
  type StoredArtifact,
} from '../artifacts/artifact-store.js';
import { choosePartSize, MAX_PARTS } from '../artifacts/part-layout.js';
import type { ArtifactLocation } from '../protocol/artifact-link.js';
import type { JobProgress } from '../protocol/job-report.js';
import { isMissing } from './in-root.js';
import { type CopiedRange, copiedPartSize, type PlannedPart, planParts } from './part-plan.js';

const MIB = 1024 * 1024;
/** Bytes before the end of a growing file that its writer may still change. */
const MARGIN = MIB;
/** Parts on their way at once; each takes the memory of a part. */
const PARALLEL = 4;
/** Milliseconds between two looks at how far the file has grown. */
const INTERVAL = 100;
/** Milliseconds between two reports of progress. */
const PROGRESS_INTERVAL = 2000;
/** How much larger than the source a new image may become before parts run out. Larger parts take more memory. */
const GROWTH = 5;
/** Bytes that are read at once of what is only compared. */
const READ_SIZE = MIB;

export interface GrowingFile {
  store: ArtifactStore;
  location: ArtifactLocation;
  metadata: Record<string, string>;
  /** Path; the file may not be there yet. Its writer goes forward, and changes nothing behind but the first part. */
  file: string;
  /** Settles when the file is whole; where it rejects, nothing is stored. */
  written: Promise<unknown>;
  /** What of the file stands in the source, sorted; settles before the file is written. */
  copied: Promise<readonly CopiedRange[]>;
  /** An artifact of the same store. Parts are copied from it on the store's side, as long as it has this etag. */
  source: ArtifactLocation & { etag: string };
  /** Bytes that the file may have; a guess, which decides on the size of parts. */
  expectedSize: number;
  onProgress: (progress: JobProgress) => Promise<void>;
}

/** What was stored, and at which cost. */
export interface UploadedFile extends StoredArtifact {
  /** Bytes that were sent; all others were copied on the side of the store. */
  bytesSent: number;
}

/**
 * Stores a file that is still being written: its parts follow the writer, the first goes last; long stretches that stand in the source are
 * copied there. Then the whole file is read once more, for its md5, and to send whatever has changed since it was sent, could not be
 * copied, or came out of the copy with another md5.
 * @throws what `written` rejects with, ArtifactStoreFailure; nothing stays in the store
 */
export async function uploadWhileWritten(growing: GrowingFile): Promise<UploadedFile> {
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
  private planned: readonly PlannedPart[] = [];
  /** md5 of parts that are in the store, by their numbers. */
  private readonly stored = new Map<number, string>();
  private readonly sending = new Set<Promise<void>>();
  private upload: Promise<ArtifactUpload> | null = null;
  private failure: unknown = null;
  private bytesSent = 0;
  private told = 0;

  constructor(private readonly growing: GrowingFile) {
    this.partSize = choosePartSize(growing.expectedSize * GROWTH);
  }

  async run(): Promise<UploadedFile> {
    const { file, written, copied, store, location, metadata } = this.growing;
    this.planned = planParts(await copied, copiedPartSize(this.partSize));
    await this.copyParts();
    await this.follow();
    await written;
    const { size } = await stat(file);
    if (!this.upload && size <= this.partSize)
      return { ...(await store.put(location, { body: { file }, metadata })), bytesSent: size };
    const handle = await open(file, 'r');
    try {
      const md5 = await this.sendRest(handle, size);
      return { ...(await (await this.begun()).complete(md5)), bytesSent: this.bytesSent };
    } finally {
      await handle.close();
    }
  }

  async abort(): Promise<void> {
    await Promise.allSettled(this.sending);
    await (await this.upload)?.abort();
  }

  /** Copies what stands in the source. What cannot be copied is sent later. */
  private async copyParts(): Promise<void> {
    const { source } = this.growing;
    for (const [index, { start, end, source: from }] of this.planned.entries()) {
      if (from === null) continue;
      const upload = await this.begun();
      await this.track(async () => {
        const range = { start: from, end: from + (end - start) };
        const etag = await upload.copyPart(index + 1, source, range, source.etag).catch((error: unknown) => {
          if (error instanceof ArtifactStoreFailure || error instanceof NoSuchArtifact) return null;
          throw error;
        });
        if (etag !== null) this.stored.set(index + 1, etag);
      });
    }
  }

  /** Sends all parts but the first while the file grows; returns when it does not grow any more. */
  private async follow(): Promise<void> {
    const state = { isWritten: false };
    const setWritten = () => void (state.isWritten = true);
    const end = this.growing.written.then(setWritten, setWritten);
    for (let next = 2; !state.isWritten;) {
      const size = await sizeOf(this.growing.file);
      for (; this.part(next).end + 1 + MARGIN <= size; next++)
        if (this.part(next).source === null) await this.send(next);
      await this.tell({ stage: 'pack', done: size, total: null });
      await Promise.race([end, new Promise((resolve) => setTimeout(resolve, INTERVAL))]);
    }
    await this.drain();
  }

  /** The part with a number from 1 on: those that were planned, then others of the same size without an end. */
  private part(number: number): PlannedPart {
    const planned = this.planned[number - 1];
    if (planned) return planned;
    const first = (this.planned.at(-1)?.end ?? -1) + 1;
    const start = first + (number - 1 - this.planned.length) * this.partSize;
    return { start, end: start + this.partSize - 1, source: null };
  }

  /** Reads the whole file: sends what is not in the store as it is now. Returns the md5 of the whole. */
  private async sendRest(handle: FileHandle, size: number): Promise<string> {
    const whole = createHash('md5');
    for (let number = 1; this.part(number).start < size; number++) {
      if (number > MAX_PARTS)
        throw new ArtifactStoreFailure(`an artifact of ${size} bytes needs more parts than S3 takes`);
      const { start, end } = this.part(number);
      const length = Math.min(end + 1, size) - start;
      const part = createHash('md5');
      // Parts that are copied may be larger than what memory is meant to hold.
      for (let done = 0; done < length; done += READ_SIZE) {
        const content = await readFully(handle, start + done, Math.min(READ_SIZE, length - done));
        whole.update(content);
        part.update(content);
      }
      const md5 = part.digest('hex');
      if (this.stored.get(number) !== md5) await this.begin(number, await readFully(handle, start, length), md5);
      await this.tell({ stage: 'upload', done: start + length, total: size });
    }
    await this.drain();
    return whole.digest('hex');
  }

  private async send(number: number): Promise<void> {
    const handle = await open(this.growing.file, 'r');
    try {
      const { start, end } = this.part(number);
      const content = await readFully(handle, start, end - start + 1);
      await this.begin(number, content, createHash('md5').update(content).digest('hex'));
    } finally {
      await handle.close();
    }
  }

  /** Sends a part; returns when there is room for another. */
  private async begin(number: number, content: Buffer, md5: string): Promise<void> {
    const upload = await this.begun();
    await this.track(async () => {
      await upload.part(number, content);
      this.stored.set(number, md5);
      this.bytesSent += content.length;
    });
  }

  private begun(): Promise<ArtifactUpload> {
    this.upload ??= this.growing.store.upload(this.growing.location, this.growing.metadata);
    return this.upload;
  }

  /** Lets a request go; returns when there is room for another. */
  private async track(request: () => Promise<void>): Promise<void> {
    const sending: Promise<void> = request()
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
