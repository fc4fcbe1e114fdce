import { closeSync, constants, openSync, readSync } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';

const { O_NOFOLLOW, O_RDONLY } = constants;
/** Bytes that are read at once of a file that is longer than a block. */
const READ_SIZE = 1024 * 1024;

/** A file became shorter or longer while the image root was packed. */
export class FileChanged extends Error {
  constructor(path: string) {
    super(`${JSON.stringify(path)} changed while the image root was packed`);
    this.name = 'FileChanged';
  }
}

/**
 * Reads a regular file block by block. All blocks but the last are `blockSize` long. Nobody writes to them afterwards.
 * @param path latin1
 * @throws FileChanged where the file has another size
 */
export async function* fileBlocks(path: string, size: number, blockSize: number): AsyncGenerator<Buffer, void, void> {
  if (size > blockSize) yield* readLong(path, size, blockSize);
  else if (size > 0) yield readShort(path, size);
}

/**
 * Reads a file of a block at most. On this thread: a root has tens of thousands of them, and each trip to another would take longer.
 * @param path latin1
 * @throws FileChanged where the file has another size
 */
export function readShort(path: string, size: number): Buffer {
  const fd = openSync(Buffer.from(path, 'latin1'), O_RDONLY | O_NOFOLLOW);
  try {
    // One byte more than there should be: a file that has grown fills it, and of one that has not, fewer bytes come than were asked for.
    const content = Buffer.allocUnsafe(size + 1);
    let done = readSync(fd, content, 0, content.length, 0);
    for (let bytes = done; bytes !== 0 && done < size; done += bytes)
      bytes = readSync(fd, content, done, content.length - done, done);
    if (done !== size) throw new FileChanged(path);
    return content.subarray(0, size);
  } finally {
    closeSync(fd);
  }
}

async function* readLong(path: string, size: number, blockSize: number): AsyncGenerator<Buffer, void, void> {
  const handle = await open(Buffer.from(path, 'latin1'), O_RDONLY | O_NOFOLLOW);
  try {
    let next = readRange(handle, 0, size, path);
    for (let position = 0; position < size; position += READ_SIZE) {
      const content = await next;
      next = readRange(handle, position + READ_SIZE, size, path);
      // It may fail before anybody waits for it.
      next.catch(() => {});
      for (let at = 0; at < content.length; at += blockSize) yield content.subarray(at, at + blockSize);
    }
    const { bytesRead } = await handle.read(Buffer.alloc(1), 0, 1, size);
    if (bytesRead !== 0) throw new FileChanged(path);
  } finally {
    await handle.close();
  }
}

/** Reads up to `READ_SIZE` bytes, which is a multiple of every size of a block. */
async function readRange(handle: FileHandle, position: number, size: number, path: string): Promise<Buffer> {
  const content = Buffer.allocUnsafe(Math.max(Math.min(READ_SIZE, size - position), 0));
  for (let done = 0; done < content.length;) {
    const { bytesRead } = await handle.read(content, done, content.length - done, position + done);
    if (bytesRead === 0) throw new FileChanged(path);
    done += bytesRead;
  }
  return content;
}
