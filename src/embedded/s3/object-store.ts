import { createHash, randomUUID } from 'node:crypto';
import { constants, createReadStream } from 'node:fs';
import { type FileHandle, link, mkdir, open, readdir, readFile, rename, rm, statfs } from 'node:fs/promises';
import path from 'node:path';
import { Readable } from 'node:stream';
import { type Checksum, CHECKSUMS, type ChecksumName } from './checksums.js';
import { S3Error, s3Errors } from './s3-error.js';

/** A run of bytes of a blob; an object is a list of them. */
export interface Segment {
  blob: string;
  offset: number;
  size: number;
}

/** What a client says of an object beside its content. */
export interface ObjectAttributes {
  metadata: Record<string, string>;
  contentType: string;
  contentEncoding?: string;
}

export interface StoredObject extends ObjectAttributes {
  key: string;
  size: number;
  /** Without quotes. */
  etag: string;
  /** ISO 8601. */
  modified: string;
  checksums: Partial<Record<ChecksumName, string>>;
  segments: Segment[];
}

export interface Part {
  number: number;
  size: number;
  /** md5 in hex. */
  md5: string;
  modified: string;
  segments: Segment[];
}

export interface Upload extends ObjectAttributes {
  id: string;
  bucket: string;
  key: string;
  initiated: string;
  parts: Map<number, Part>;
}

/** What a body must turn out to be; a function tells it when the body has ended. */
export interface Expectation {
  /** Bytes. */
  length?: number;
  /** Base64. */
  md5?: string;
  /** Hex. */
  sha256?: string;
  checksums?: Partial<Record<ChecksumName, string | (() => string | undefined)>>;
}

/** What a write asks of the object that it replaces. */
export interface Precondition {
  ifMatch?: string;
  ifNoneMatch?: string;
}

interface Content {
  size: number;
  md5: string;
  checksums: Partial<Record<ChecksumName, string>>;
}

/** Smallest part that is not the last one, as S3 has it. */
const MIN_PART = 5 * 1024 * 1024;
const MAX_PART = 5 * 1024 ** 3;
/** Bytes of a body between two looks at the free space. */
const SPACE_INTERVAL = 64 * 1024 * 1024;

async function syncDirectory(directory: string): Promise<void> {
  const handle = await open(directory, 'r');
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

function compareBytes(left: string, right: string): number {
  return Buffer.compare(Buffer.from(left), Buffer.from(right));
}

/** Bytes of a run of segments from `start`, `end` included. */
export function sliceSegments(segments: readonly Segment[], start: number, end: number): Segment[] {
  const slice: Segment[] = [];
  let position = 0;
  for (const segment of segments) {
    const from = Math.max(start - position, 0);
    const to = Math.min(end + 1 - position, segment.size);
    if (from < to) slice.push({ blob: segment.blob, offset: segment.offset + from, size: to - from });
    position += segment.size;
  }
  return slice;
}

/** Joins neighbours that follow each other in one blob: an upload whose parts were written in place becomes one segment. */
function joinSegments(segments: readonly Segment[]): Segment[] {
  const joined: Segment[] = [];
  for (const segment of segments) {
    const last = joined.at(-1);
    if (last && last.blob === segment.blob && last.offset + last.size === segment.offset) last.size += segment.size;
    else joined.push({ ...segment });
  }
  return joined;
}

/**
 * Objects on a disk. Content lies in blobs, files that never change once an object refers to them; an object is a JSON record that is
 * renamed into place when its content is on the disk. So a crash at any moment leaves the old object or the new one, and at start what no
 * record refers to is removed.
 *
 * Parts of an upload are written into one file at the place that they will have, as far as their sizes allow it, so that the finished
 * object is one file without another copy; other parts become blobs of their own.
 */
export class ObjectStore {
  private readonly buckets = new Map<string, Map<string, StoredObject>>();
  private readonly uploads = new Map<string, Upload>();
  private readonly sortedKeys = new Map<string, string[]>();
  private readonly locks = new Map<string, Promise<unknown>>();
  /** How many objects and uploads, and readers, use a blob. */
  private readonly uses = new Map<string, number>();
  /** Size of the parts that are written in place, and those that are being written, by upload. */
  private readonly places = new Map<string, { size: number; writing: Set<number> }>();

  constructor(
    private readonly directory: string,
    private readonly reserveBytes: number,
  ) {}

  private file(...names: string[]): string {
    return path.join(this.directory, ...names);
  }

  private objectFile(bucket: string, key: string): string {
    const hash = createHash('sha256').update(key).digest('hex');
    return this.file('objects', bucket, hash.slice(0, 2), `${hash}.json`);
  }

  /** Reads what is there and removes what a crash left. */
  async open(): Promise<void> {
    for (const name of ['temporary', 'blobs', 'objects', 'uploads']) await mkdir(this.file(name), { recursive: true });
    for (const name of await readdir(this.file('temporary'))) await rm(this.file('temporary', name), { force: true });
    for (const bucket of await readdir(this.file('objects'))) await this.openBucket(bucket);
    for (const id of await readdir(this.file('uploads'))) await this.openUpload(id);
    for (const blob of await readdir(this.file('blobs')))
      if (!this.uses.has(blob)) await rm(this.file('blobs', blob), { force: true });
  }

  private async openBucket(bucket: string): Promise<void> {
    const objects = new Map<string, StoredObject>();
    for (const shard of await readdir(this.file('objects', bucket)))
      for (const name of await readdir(this.file('objects', bucket, shard))) {
        const object = JSON.parse(await readFile(this.file('objects', bucket, shard, name), 'utf8')) as StoredObject;
        objects.set(object.key, object);
        this.use(object.segments);
      }
    this.buckets.set(bucket, objects);
  }

  private async openUpload(id: string): Promise<void> {
    const names = await readdir(this.file('uploads', id));
    if (!names.includes('upload.json')) return rm(this.file('uploads', id), { recursive: true, force: true });
    const upload = JSON.parse(await readFile(this.file('uploads', id, 'upload.json'), 'utf8')) as Upload;
    upload.parts = new Map();
    for (const name of names.filter((file) => file.endsWith('.part.json'))) {
      const part = JSON.parse(await readFile(this.file('uploads', id, name), 'utf8')) as Part;
      upload.parts.set(part.number, part);
      this.use(part.segments);
    }
    // Parts that come now become blobs of their own: which size the others were given their places by is not known any more.
    this.places.set(id, { size: 0, writing: new Set() });
    this.use([{ blob: id, offset: 0, size: 0 }]);
    this.uploads.set(id, upload);
  }

  private use(segments: readonly Segment[]): void {
    for (const { blob } of segments) this.uses.set(blob, (this.uses.get(blob) ?? 0) + 1);
  }

  /** Gives up uses; a blob that nobody uses any more is removed. */
  private unuse(segments: readonly Segment[]): void {
    for (const { blob } of segments) {
      const left = this.uses.get(blob)! - 1;
      if (left) this.uses.set(blob, left);
      else {
        this.uses.delete(blob);
        void rm(this.file('blobs', blob), { force: true }).catch(() => {});
      }
    }
  }

  /** Runs steps with the same name one after the other. */
  private async exclusively<T>(name: string, step: () => Promise<T>): Promise<T> {
    const before = this.locks.get(name) ?? Promise.resolve();
    const turn = before.then(step, step);
    const settled = turn.catch(() => {});
    this.locks.set(name, settled);
    void settled.then(() => this.locks.get(name) === settled && this.locks.delete(name));
    return turn;
  }

  /** Writes a record so that it is whole or absent, and on the disk when this returns. */
  private async writeRecord(file: string, record: object): Promise<void> {
    const temporary = this.file('temporary', randomUUID());
    const directory = path.dirname(file);
    const made = await mkdir(directory, { recursive: true });
    try {
      const handle = await open(temporary, 'w', 0o600);
      try {
        await handle.writeFile(JSON.stringify(record));
        await handle.sync();
      } finally {
        await handle.close();
      }
      await rename(temporary, file);
    } catch (error) {
      await rm(temporary, { force: true });
      throw error;
    }
    await syncDirectory(directory);
    if (made) await syncDirectory(path.dirname(directory));
  }

  // Buckets

  bucketNames(): string[] {
    return [...this.buckets.keys()].toSorted(compareBytes);
  }

  objectsOf(bucket: string): ReadonlyMap<string, StoredObject> {
    const objects = this.buckets.get(bucket);
    if (!objects) throw s3Errors.noSuchBucket();
    return objects;
  }

  private writableObjectsOf(bucket: string): Map<string, StoredObject> {
    return this.objectsOf(bucket) as Map<string, StoredObject>;
  }

  async createBucket(bucket: string): Promise<void> {
    if (!/^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$/.test(bucket)) throw s3Errors.invalidBucketName();
    if (this.buckets.has(bucket)) throw s3Errors.bucketExists();
    this.buckets.set(bucket, new Map());
    await mkdir(this.file('objects', bucket), { recursive: true });
    await syncDirectory(this.file('objects'));
  }

  async deleteBucket(bucket: string): Promise<void> {
    if (this.objectsOf(bucket).size) throw s3Errors.bucketNotEmpty();
    this.buckets.delete(bucket);
    await rm(this.file('objects', bucket), { recursive: true, force: true });
  }

  /** Keys of a bucket in byte order. */
  keysOf(bucket: string): readonly string[] {
    const known = this.sortedKeys.get(bucket);
    if (known) return known;
    const keys = [...this.objectsOf(bucket).keys()].toSorted(compareBytes);
    this.sortedKeys.set(bucket, keys);
    return keys;
  }

  // Objects

  get(bucket: string, key: string): StoredObject {
    const object = this.objectsOf(bucket).get(key);
    if (!object) throw s3Errors.noSuchKey();
    return object;
  }

  async put(
    bucket: string,
    key: string,
    attributes: ObjectAttributes,
    body: Readable,
    expected: Expectation,
    when: Precondition,
  ): Promise<StoredObject> {
    this.objectsOf(bucket);
    const blob = randomUUID();
    const content = await this.writeBlob(blob, body, expected);
    const segments = content.size ? [{ blob, offset: 0, size: content.size }] : [];
    this.use([{ blob, offset: 0, size: 0 }]);
    try {
      return await this.commit(
        bucket,
        {
          ...attributes,
          key,
          size: content.size,
          etag: content.md5,
          modified: now(),
          checksums: content.checksums,
          segments,
        },
        when,
      );
    } finally {
      this.unuse([{ blob, offset: 0, size: 0 }]);
    }
  }

  /** Makes an object visible in place of what has its key. */
  private async commit(bucket: string, object: StoredObject, when: Precondition): Promise<StoredObject> {
    return this.exclusively(`${bucket}/${object.key}`, async () => {
      const objects = this.writableObjectsOf(bucket);
      const old = objects.get(object.key);
      if (when.ifNoneMatch === '*' && old) throw s3Errors.preconditionFailed();
      if (when.ifMatch !== undefined && !matches(when.ifMatch, old?.etag)) throw s3Errors.preconditionFailed();
      this.use(object.segments);
      try {
        await this.writeRecord(this.objectFile(bucket, object.key), object);
      } catch (error) {
        this.unuse(object.segments);
        throw spaceError(error);
      }
      objects.set(object.key, object);
      if (!old) this.sortedKeys.delete(bucket);
      if (old) this.unuse(old.segments);
      return object;
    });
  }

  /** A copy shares no blob with its source, as blobs have one owner each; it takes hard links, not bytes. */
  async copy(source: StoredObject, bucket: string, key: string, attributes: ObjectAttributes): Promise<StoredObject> {
    this.objectsOf(bucket);
    const links = new Map<string, string>();
    this.use(source.segments);
    try {
      for (const { blob } of source.segments) {
        if (links.has(blob)) continue;
        links.set(blob, randomUUID());
        await link(this.file('blobs', blob), this.file('blobs', links.get(blob)!));
      }
      await syncDirectory(this.file('blobs'));
      const segments = source.segments.map((segment) => ({ ...segment, blob: links.get(segment.blob)! }));
      return await this.commit(bucket, { ...source, ...attributes, key, modified: now(), segments }, {});
    } catch (error) {
      for (const blob of links.values()) await rm(this.file('blobs', blob), { force: true });
      throw error;
    } finally {
      this.unuse(source.segments);
    }
  }

  async delete(bucket: string, key: string): Promise<void> {
    return this.exclusively(`${bucket}/${key}`, async () => {
      const objects = this.writableObjectsOf(bucket);
      const object = objects.get(key);
      if (!object) return;
      const file = this.objectFile(bucket, key);
      await rm(file, { force: true });
      await syncDirectory(path.dirname(file));
      objects.delete(key);
      this.sortedKeys.delete(bucket);
      this.unuse(object.segments);
    });
  }

  /** Content as a stream. What is deleted or replaced meanwhile stays until its last reader is done. */
  read(segments: readonly Segment[]): Readable {
    this.use(segments);
    const files = (async function* (store: ObjectStore) {
      for (const { blob, offset, size } of segments)
        yield* createReadStream(store.file('blobs', blob), {
          start: offset,
          end: offset + size - 1,
          highWaterMark: 1 << 20,
        });
    })(this);
    const stream = Readable.from(files, { objectMode: false, highWaterMark: 1 << 20 });
    stream.once('close', () => this.unuse(segments));
    return stream;
  }

  /** The file that is the whole content of an object, where it is one file. */
  fileOf({ segments, size }: StoredObject): string | null {
    const [only, ...others] = segments;
    return only && !others.length && only.offset === 0 && only.size === size ? this.file('blobs', only.blob) : null;
  }

  // Content

  /** Writes a body into a new blob. Nothing is left of one that is not what it should be. */
  private async writeBlob(blob: string, body: Readable, expected: Expectation): Promise<Content> {
    const temporary = this.file('temporary', blob);
    try {
      const handle = await open(temporary, 'wx', 0o600);
      let content: Content;
      try {
        content = await this.writeContent(handle, 0, body, expected);
        await handle.sync();
      } finally {
        await handle.close();
      }
      await rename(temporary, this.file('blobs', blob));
      await syncDirectory(this.file('blobs'));
      return content;
    } catch (error) {
      await rm(temporary, { force: true });
      throw spaceError(error);
    }
  }

  /** Writes a body at an offset and checks it on the way. */
  private async writeContent(
    handle: FileHandle,
    offset: number,
    body: Readable,
    expected: Expectation,
  ): Promise<Content> {
    const md5 = createHash('md5');
    const sha256 = expected.sha256 ? createHash('sha256') : null;
    const checksums = (Object.keys(expected.checksums ?? {}) as ChecksumName[]).map(
      (name): [ChecksumName, Checksum] => [name, CHECKSUMS[name]()],
    );
    await this.checkSpace(expected.length ?? 0);
    let size = 0;
    let unchecked = 0;
    for await (const chunk of gathered(body)) {
      if ((unchecked += chunk.length) > SPACE_INTERVAL) {
        await this.checkSpace(0);
        unchecked = 0;
      }
      md5.update(chunk);
      sha256?.update(chunk);
      for (const [, checksum] of checksums) checksum.update(chunk);
      await writeFully(handle, chunk, offset + size);
      size += chunk.length;
    }
    const content = {
      size,
      md5: md5.digest('hex'),
      checksums: Object.fromEntries(checksums.map(([name, checksum]) => [name, checksum.digest()])),
    };
    checkContent(content, sha256?.digest('hex'), expected);
    return content;
  }

  /** A full disk hurts more than this store: the database beside it stops. */
  private async checkSpace(bytes: number): Promise<void> {
    const { bavail, bsize } = await statfs(this.directory);
    if (bavail * bsize - bytes < this.reserveBytes) throw s3Errors.diskFull();
  }

  // Uploads in parts

  async createUpload(bucket: string, key: string, attributes: ObjectAttributes): Promise<Upload> {
    this.objectsOf(bucket);
    const id = randomUUID();
    const record = { ...attributes, id, bucket, key, initiated: now() };
    await this.writeRecord(this.file('uploads', id, 'upload.json'), record);
    const upload = { ...record, parts: new Map<number, Part>() };
    this.uploads.set(id, upload);
    this.places.set(id, { size: 0, writing: new Set() });
    this.use([{ blob: id, offset: 0, size: 0 }]);
    return upload;
  }

  upload(bucket: string, key: string, id: string): Upload {
    const upload = this.uploads.get(id);
    if (!upload || upload.bucket !== bucket || upload.key !== key) throw s3Errors.noSuchUpload();
    return upload;
  }

  uploadsOf(bucket: string): Upload[] {
    this.objectsOf(bucket);
    const uploads = [...this.uploads.values()].filter((upload) => upload.bucket === bucket);
    return uploads.toSorted((left, right) => compareBytes(left.key, right.key) || compareBytes(left.id, right.id));
  }

  /** All uploads that were begun before a moment. */
  uploadsBefore(moment: Date): Upload[] {
    return [...this.uploads.values()].filter(({ initiated }) => new Date(initiated) < moment);
  }

  async putPart(
    upload: Upload,
    number: number,
    body: Readable,
    expected: Expectation,
  ): Promise<{ part: Part; checksums: Content['checksums'] }> {
    if (!Number.isInteger(number) || number < 1 || number > 10_000)
      throw s3Errors.invalidArgument('partNumber must be from 1 to 10000.');
    if ((expected.length ?? 0) > MAX_PART) throw s3Errors.entityTooLarge();
    const place = this.placeOf(upload, number, expected.length);
    const { content, segments } =
      place === null
        ? await this.writeLoosePart(body, expected)
        : await this.writePartInPlace(upload, number, place, body, expected);
    this.use(segments);
    const part: Part = { number, size: content.size, md5: content.md5, modified: now(), segments };
    return this.exclusively(upload.id, async () => {
      try {
        this.upload(upload.bucket, upload.key, upload.id);
        await this.writeRecord(this.file('uploads', upload.id, `${number}.part.json`), part);
      } catch (error) {
        this.unuse(segments);
        throw spaceError(error);
      }
      const old = upload.parts.get(number);
      upload.parts.set(number, part);
      if (old) this.unuse(old.segments);
      return { part, checksums: content.checksums };
    });
  }

  /** Where a part belongs in the upload's file, where that can be told: all parts but the last are of the size of the first that came. */
  private placeOf(upload: Upload, number: number, length: number | undefined): number | null {
    const places = this.places.get(upload.id)!;
    if (!length || upload.parts.has(number) || places.writing.has(number)) return null;
    if (!places.size && !upload.parts.size) places.size = length;
    if (!places.size || length > places.size) return null;
    places.writing.add(number);
    return (number - 1) * places.size;
  }

  private async writePartInPlace(
    upload: Upload,
    number: number,
    offset: number,
    body: Readable,
    expected: Expectation,
  ) {
    try {
      const handle = await open(this.file('blobs', upload.id), constants.O_RDWR | constants.O_CREAT, 0o600);
      try {
        const content = await this.writeContent(handle, offset, body, expected);
        await handle.datasync();
        return { content, segments: [{ blob: upload.id, offset, size: content.size }] };
      } finally {
        await handle.close();
      }
    } catch (error) {
      throw spaceError(error);
    } finally {
      this.places.get(upload.id)?.writing.delete(number);
    }
  }

  private async writeLoosePart(body: Readable, expected: Expectation) {
    const blob = randomUUID();
    const content = await this.writeBlob(blob, body, expected);
    return { content, segments: [{ blob, offset: 0, size: content.size }] };
  }

  /** Makes the object of the parts that are named, and forgets the upload. */
  async completeUpload(
    upload: Upload,
    named: readonly { number: number; etag: string }[],
    when: Precondition,
  ): Promise<StoredObject> {
    return this.exclusively(upload.id, async () => {
      this.upload(upload.bucket, upload.key, upload.id);
      const parts = chooseParts(upload, named);
      await syncDirectory(this.file('blobs'));
      const digests = parts.map(({ md5 }) => Buffer.from(md5, 'hex'));
      const object = await this.commit(
        upload.bucket,
        {
          key: upload.key,
          metadata: upload.metadata,
          contentType: upload.contentType,
          ...(upload.contentEncoding && { contentEncoding: upload.contentEncoding }),
          size: parts.reduce((sum, { size }) => sum + size, 0),
          etag: `${createHash('md5').update(Buffer.concat(digests)).digest('hex')}-${parts.length}`,
          modified: now(),
          checksums: {},
          segments: joinSegments(parts.flatMap(({ segments }) => segments)),
        },
        when,
      );
      await this.forgetUpload(upload);
      return object;
    });
  }

  async abortUpload(upload: Upload): Promise<void> {
    await this.exclusively(upload.id, async () => {
      this.upload(upload.bucket, upload.key, upload.id);
      await this.forgetUpload(upload);
    });
  }

  private async forgetUpload(upload: Upload): Promise<void> {
    this.uploads.delete(upload.id);
    this.places.delete(upload.id);
    await rm(this.file('uploads', upload.id), { recursive: true, force: true });
    for (const { segments } of upload.parts.values()) this.unuse(segments);
    this.unuse([{ blob: upload.id, offset: 0, size: 0 }]);
  }
}

function chooseParts(upload: Upload, named: readonly { number: number; etag: string }[]): Part[] {
  const parts = named.map(({ number, etag }, index) => {
    if (index && named[index - 1]!.number >= number) throw s3Errors.invalidPartOrder();
    const part = upload.parts.get(number);
    if (!part || part.md5 !== etag.replaceAll('"', '')) throw s3Errors.invalidPart();
    return part;
  });
  if (!parts.length) throw s3Errors.malformedXml();
  if (parts.slice(0, -1).some(({ size }) => size < MIN_PART)) throw s3Errors.entityTooSmall();
  return parts;
}

function checkContent(content: Content, sha256: string | undefined, expected: Expectation): void {
  if (expected.length !== undefined && content.size !== expected.length) throw s3Errors.incompleteBody();
  if (expected.md5 && Buffer.from(content.md5, 'hex').toString('base64') !== expected.md5)
    throw s3Errors.badDigest('md5');
  if (expected.sha256 && sha256 !== expected.sha256) throw s3Errors.wrongSha256();
  for (const [name, value] of Object.entries(expected.checksums ?? {})) {
    const wanted = typeof value === 'function' ? value() : value;
    if (wanted !== undefined && wanted !== content.checksums[name as ChecksumName]) throw s3Errors.badDigest(name);
  }
}

/** Whether an etag satisfies `If-Match`. */
export function matches(condition: string, etag: string | undefined): boolean {
  if (etag === undefined) return false;
  return condition
    .split(',')
    .some((item) => item.trim() === '*' || item.trim().replace(/^W\//, '').replaceAll('"', '') === etag);
}

function now(): string {
  return new Date().toISOString();
}

function spaceError(error: unknown): unknown {
  const isFull = ['ENOSPC', 'EDQUOT'].includes((error as NodeJS.ErrnoException).code ?? '');
  return isFull && !(error instanceof S3Error) ? s3Errors.diskFull() : error;
}

async function writeFully(handle: FileHandle, chunk: Buffer, position: number): Promise<void> {
  for (let done = 0; done < chunk.length;)
    done += (await handle.write(chunk, done, chunk.length - done, position + done)).bytesWritten;
}

/** Gathers what arrives in small pieces, so that the disk is written to in large ones. */
async function* gathered(body: Readable): AsyncGenerator<Buffer> {
  let pieces: Buffer[] = [];
  let size = 0;
  for await (const piece of body as AsyncIterable<Buffer>) {
    pieces.push(piece);
    if ((size += piece.length) < 1 << 20) continue;
    yield Buffer.concat(pieces);
    pieces = [];
    size = 0;
  }
  if (size) yield Buffer.concat(pieces);
}
