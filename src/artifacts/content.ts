import { createHash } from 'node:crypto';
import { type FileHandle, open } from 'node:fs/promises';
import type { ByteRange, PutArtifact } from './artifact-store.js';

/** Content that can be read more than once, in any range. */
export interface Content {
  /** Bytes. */
  readonly size: number;
  /** The bytes of a range that lies inside of the content. */
  read(range: ByteRange): Promise<Buffer>;
  close(): Promise<void>;
}

/** Digests of a content and of its parts. */
export interface Digests {
  /** md5 of the whole, hex. */
  md5: string;
  /** md5 of each part in order, base64 as `Content-MD5` wants it. */
  parts: string[];
}

/** Opens the body of a put. Rejects as node:fs does where a file cannot be read. */
export async function openContent(body: PutArtifact['body']): Promise<Content> {
  if (Buffer.isBuffer(body)) return new BufferContent(body);
  const handle = await open(body.file, 'r');
  try {
    return new FileContent(body.file, handle, (await handle.stat()).size);
  } catch (error) {
    await handle.close();
    throw error;
  }
}

/** Reads a content once, a part at a time. */
export async function digestContent(content: Content, ranges: readonly ByteRange[]): Promise<Digests> {
  const whole = createHash('md5');
  const parts: string[] = [];
  for (const range of ranges) {
    const bytes = await content.read(range);
    whole.update(bytes);
    parts.push(contentMd5(bytes));
  }
  return { md5: whole.digest('hex'), parts };
}

/** The value of a `Content-MD5` header: the store refuses content that arrives changed. */
export function contentMd5(bytes: Buffer): string {
  return createHash('md5').update(bytes).digest('base64');
}

class BufferContent implements Content {
  readonly size: number;

  constructor(private readonly buffer: Buffer) {
    this.size = buffer.length;
  }

  read({ start, end }: ByteRange): Promise<Buffer> {
    return Promise.resolve(this.buffer.subarray(start, end + 1));
  }

  close(): Promise<void> {
    return Promise.resolve();
  }
}

class FileContent implements Content {
  constructor(
    private readonly file: string,
    private readonly handle: FileHandle,
    readonly size: number,
  ) {}

  async read({ start, end }: ByteRange): Promise<Buffer> {
    const buffer = Buffer.allocUnsafe(end - start + 1);
    for (let filled = 0; filled < buffer.length;) {
      const { bytesRead } = await this.handle.read(buffer, filled, buffer.length - filled, start + filled);
      if (bytesRead === 0)
        throw new Error(`${this.file} became shorter while it was stored: store it again when it is complete`);
      filled += bytesRead;
    }
    return buffer;
  }

  close(): Promise<void> {
    return this.handle.close();
  }
}
