import { createHash, type Hash } from 'node:crypto';
import { type Checksum, CHECKSUMS, type ChecksumName } from './checksums.js';
import { s3Errors } from './s3-error.js';

/** What a body must turn out to be. */
export interface Expectation {
  /** Bytes. */
  length?: number;
  /** Base64. */
  md5?: string;
  /** Hex. */
  sha256?: string;
  /** Base64, or a function that tells it when the body has ended. */
  checksums?: Partial<Record<ChecksumName, string | (() => string)>>;
}

/** What a body turned out to be. */
export interface Content {
  /** Bytes. */
  size: number;
  /** Hex. */
  md5: string;
  /** Base64, of the kinds that the client named. */
  checksums: Partial<Record<ChecksumName, string>>;
}

/** Digests a body on its way, and says at its end whether it is what its sender announced. */
export class ContentCheck {
  private size = 0;
  private readonly md5 = createHash('md5');
  private readonly sha256: Hash | null;
  private readonly checksums: [ChecksumName, Checksum][];

  constructor(private readonly expected: Expectation) {
    this.sha256 = expected.sha256 === undefined ? null : createHash('sha256');
    const names = Object.keys(expected.checksums ?? {}) as ChecksumName[];
    this.checksums = names.map((name) => [name, CHECKSUMS[name]()]);
  }

  update(chunk: Buffer): void {
    this.size += chunk.length;
    this.md5.update(chunk);
    this.sha256?.update(chunk);
    for (const [, checksum] of this.checksums) checksum.update(chunk);
  }

  /**
   * To be called once, when the body has ended.
   * @throws S3Error where a length or a digest differs
   */
  end(): Content {
    const md5 = this.md5.digest();
    const { length, md5: wantedMd5, sha256 } = this.expected;
    if (length !== undefined && this.size !== length) throw s3Errors.incompleteBody();
    if (wantedMd5 !== undefined && md5.toString('base64') !== wantedMd5) throw s3Errors.badDigest('md5');
    if (sha256 !== undefined && this.sha256?.digest('hex') !== sha256) throw s3Errors.wrongSha256();
    return { size: this.size, md5: md5.toString('hex'), checksums: this.endChecksums() };
  }

  private endChecksums(): Content['checksums'] {
    const entries = this.checksums.map(([name, checksum]): [ChecksumName, string] => [name, checksum.digest()]);
    for (const [name, value] of entries) {
      const wanted = this.expected.checksums?.[name];
      if ((typeof wanted === 'function' ? wanted() : wanted) !== value) throw s3Errors.badDigest(name);
    }
    return Object.fromEntries(entries);
  }
}
