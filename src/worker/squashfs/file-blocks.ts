import { constants, type FileHandle, open } from 'node:fs/promises';

const { O_NOFOLLOW, O_RDONLY } = constants;

/** A file became shorter or longer while the image root was packed. */
export class FileChanged extends Error {
  constructor(path: string) {
    super(`${JSON.stringify(path)} changed while the image root was packed`);
    this.name = 'FileChanged';
  }
}

/**
 * Reads a regular file block by block. All blocks but the last are `blockSize` long.
 * @param path latin1
 * @throws FileChanged where the file has another size
 */
export async function* fileBlocks(path: string, size: number, blockSize: number): AsyncGenerator<Buffer, void, void> {
  const handle = await open(Buffer.from(path, 'latin1'), O_RDONLY | O_NOFOLLOW);
  try {
    for (let position = 0; position < size; position += blockSize)
      yield await readBlock(handle, position, Math.min(blockSize, size - position), path);
    const { bytesRead } = await handle.read(Buffer.alloc(1), 0, 1, size);
    if (bytesRead !== 0) throw new FileChanged(path);
  } finally {
    await handle.close();
  }
}

async function readBlock(handle: FileHandle, position: number, length: number, path: string): Promise<Buffer> {
  const content = Buffer.allocUnsafe(length);
  for (let done = 0; done < length;) {
    const { bytesRead } = await handle.read(content, done, length - done, position + done);
    if (bytesRead === 0) throw new FileChanged(path);
    done += bytesRead;
  }
  return content;
}
