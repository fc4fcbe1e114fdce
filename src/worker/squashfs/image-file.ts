import { closeSync, fstatSync, openSync, readSync } from 'node:fs';
import { BadSquashfs } from './bad-squashfs.js';

/** A file that is read at any position, and never beyond its end. */
export class ImageFile {
  private constructor(
    readonly fd: number,
    /** Bytes. */
    readonly size: number,
  ) {}

  static open(path: string): ImageFile {
    const fd = openSync(path, 'r');
    return new ImageFile(fd, fstatSync(fd).size);
  }

  /** @throws BadSquashfs where the file ends before */
  read(position: number, length: number): Buffer {
    if (position + length > this.size) throw new BadSquashfs('it refers to bytes behind its end');
    const content = Buffer.allocUnsafe(length);
    for (let done = 0; done < length;) {
      const bytes = readSync(this.fd, content, done, length - done, position + done);
      if (bytes === 0) throw new BadSquashfs('it became shorter while it was read');
      done += bytes;
    }
    return content;
  }

  close(): void {
    closeSync(this.fd);
  }
}
