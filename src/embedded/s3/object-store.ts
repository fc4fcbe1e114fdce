import { createHash, randomUUID } from 'node:crypto';
import { constants, createReadStream } from 'node:fs';
import {
  type FileHandle,
  link,
  mkdir,
  open,
  readdir,
  readFile,
  rename,
  rm,
  stat,
  statfs,
  truncate,
} from 'node:fs/promises';
import path from 'node:path';
import { Readable } from 'node:stream';
import type { ChecksumName } from './checksums.js';
import { type Content, ContentCheck, type Expectation } from './content-check.js';
import { asS3Error, s3Errors } from './s3-error.js';
import { joinSegments, type Segment } from './segments.js';

/** What a client says of an object beside its content. */
export interface ObjectAttributes {
  metadata: Record<string, string>;
  /** Headers that its readers get: `content-type`, `cache-control` and so on. */
  headers: Record<string, string>;
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

/** What a write asks of the object that it replaces. */
export interface Precondition {
  ifMatch?: string;
  ifNoneMatch?: string;
}

interface Bucket {
  objects: Map<string, StoredObject>;
  /** In byte order; null when it has to be made again. */
  sortedKeys: string[] | null;
  /** Objects that are just being made visible. */
  commits: number;
}

/** Where parts of an upload are written in its file. */
interface Places {
  /** Bytes of a place; 0 while no part has come. */
  size: number;
  /** Numbers of the parts that are being written. */
  writing: Set<number>;
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

/**
 * Objects on a disk. Content lies in blobs, files that never change once an object refers to them; an object is a JSON record that is
 * renamed into place when its content is on the disk. So a crash at any moment leaves the old object or the new one, and at start what no
 * record refers to is removed.
 *
 * Parts of an upload are written into one file at the place that they will have, as far as their sizes allow it, so that the finished
 * object is one file without another copy; other parts become blobs of their own.
 */
export class ObjectStore {
  private readonly buckets = new Map<string, Bucket>();
  private readonly uploads = new Map<string, Upload>();
  private readonly locks = new Map<string, Promise<unknown>>();
  /** How many objects and uploads, and readers, use a blob. */
  private readonly uses = new Map<string, number>();
  /** By upload; also of one that has ended, until the last writer of a part has noticed. */
  private readonly places = new Map<string, Places>();
  private readonly removals = new Set<Promise<void>>();

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
    // What is synced below them is lost where they are.
    await syncDirectory(this.directory);
    await syncDirectory(path.dirname(this.directory));
    for (const name of await readdir(this.file('temporary')))
      await rm(this.file('temporary', name), { recursive: true, force: true });
    for (const bucket of await readdir(this.file('objects'))) await this.openBucket(bucket);
    for (const id of await readdir(this.file('uploads'))) await this.openUpload(id);
    for (const blob of await readdir(this.file('blobs')))
      if (!this.uses.has(blob)) await rm(this.file('blobs', blob), { force: true });
  }

  /** Waits for removals that nobody waited for. */
  async settle(): Promise<void> {
    await Promise.all(this.removals);
  }

  private async openBucket(bucket: string): Promise<void> {
    const objects = new Map<string, StoredObject>();
    for (const shard of await readdir(this.file('objects', bucket)))
      for (const name of await readdir(this.file('objects', bucket, shard))) {
        const object = JSON.parse(await readFile(this.file('objects', bucket, shard, name), 'utf8')) as StoredObject;
        objects.set(object.key, object);
        this.use(object.segments);
      }
    this.buckets.set(bucket, { objects, sortedKeys: null, commits: 0 });
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
        this.removeBlob(blob);
      }
    }
  }

  /** What cannot be removed now is removed at the next start. */
  private removeBlob(blob: string): void {
    const removal = rm(this.file('blobs', blob), { force: true })
      .catch(() => {})
      .finally(() => this.removals.delete(removal));
    this.removals.add(removal);
  }

  /** Removes a directory in one step, for a crash in the middle would leave a part of it. */
  private async removeDirectory(directory: string): Promise<void> {
    const temporary = this.file('temporary', randomUUID());
    await rename(directory, temporary);
    await syncDirectory(path.dirname(directory));
    await rm(temporary, { recursive: true, force: true });
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

  private bucket(name: string): Bucket {
    const bucket = this.buckets.get(name);
    if (!bucket) throw s3Errors.noSuchBucket();
    return bucket;
  }

  /** @throws S3Error where there is no such bucket */
  objectsOf(bucket: string): ReadonlyMap<string, StoredObject> {
    return this.bucket(bucket).objects;
  }

  async createBucket(name: string): Promise<void> {
    if (!/^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$/.test(name)) throw s3Errors.invalidBucketName();
    return this.exclusively(`bucket:${name}`, async () => {
      if (this.buckets.has(name)) throw s3Errors.bucketExists();
      await mkdir(this.file('objects', name), { recursive: true });
      await syncDirectory(this.file('objects'));
      this.buckets.set(name, { objects: new Map(), sortedKeys: null, commits: 0 });
    });
  }

  /** Removes an empty bucket and the uploads that were begun in it. */
  async deleteBucket(name: string): Promise<void> {
    return this.exclusively(`bucket:${name}`, async () => {
      const bucket = this.bucket(name);
      if (bucket.objects.size || bucket.commits) throw s3Errors.bucketNotEmpty();
      const uploads = this.uploadsOf(name);
      this.buckets.delete(name);
      try {
        await this.removeDirectory(this.file('objects', name));
      } catch (error) {
        this.buckets.set(name, bucket);
        throw error;
      }
      for (const upload of uploads) await this.abortUpload(upload).catch(ignoreMissingUpload);
    });
  }

  /** Keys of a bucket in byte order. */
  keysOf(name: string): readonly string[] {
    const bucket = this.bucket(name);
    return (bucket.sortedKeys ??= [...bucket.objects.keys()].toSorted(compareBytes));
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
    body: AsyncIterable<Buffer>,
    expected: Expectation,
    when: Precondition,
  ): Promise<StoredObject> {
    this.checkPrecondition(bucket, key, when);
    const { content, segments } = await this.writeBlob(body, expected);
    try {
      const { size, md5: etag, checksums } = content;
      return await this.commit(bucket, { ...attributes, key, size, etag, modified: now(), checksums, segments }, when);
    } finally {
      this.unuse(segments);
    }
  }

  private checkPrecondition(bucket: string, key: string, { ifMatch, ifNoneMatch }: Precondition): void {
    const etag = this.objectsOf(bucket).get(key)?.etag;
    if (ifMatch !== undefined && !matches(ifMatch, etag)) throw s3Errors.preconditionFailed();
    if (ifNoneMatch !== undefined && matches(ifNoneMatch, etag)) throw s3Errors.preconditionFailed();
  }

  /** Makes an object visible in place of what has its key. */
  private async commit(name: string, object: StoredObject, when: Precondition): Promise<StoredObject> {
    return this.exclusively(`object:${name}/${object.key}`, async () => {
      const bucket = this.bucket(name);
      this.checkPrecondition(name, object.key, when);
      this.use(object.segments);
      bucket.commits++;
      try {
        await this.writeRecord(this.objectFile(name, object.key), object);
      } catch (error) {
        this.unuse(object.segments);
        throw error;
      } finally {
        bucket.commits--;
      }
      const old = bucket.objects.get(object.key);
      bucket.objects.set(object.key, object);
      if (old) this.unuse(old.segments);
      else bucket.sortedKeys = null;
      return object;
    });
  }

  /** A copy shares no blob with its source, as blobs have one owner each; it takes hard links, not bytes. */
  async copy(
    source: StoredObject,
    bucket: string,
    key: string,
    { metadata, headers }: ObjectAttributes,
    when: Precondition,
  ): Promise<StoredObject> {
    this.checkPrecondition(bucket, key, when);
    this.use(source.segments);
    try {
      const segments = await this.linkSegments(source.segments);
      try {
        const { size, etag, checksums } = source;
        const copy = { key, metadata, headers, size, etag, modified: now(), checksums, segments };
        return await this.commit(bucket, copy, when);
      } finally {
        this.unuse(segments);
      }
    } finally {
      this.unuse(source.segments);
    }
  }

  /** The same bytes in blobs of their own; the caller uses them. */
  private async linkSegments(segments: readonly Segment[]): Promise<Segment[]> {
    const links = new Map(segments.map(({ blob }) => [blob, randomUUID() as string]));
    try {
      for (const [blob, other] of links) await link(this.file('blobs', blob), this.file('blobs', other));
      await syncDirectory(this.file('blobs'));
    } catch (error) {
      for (const other of links.values()) this.removeBlob(other);
      throw error;
    }
    const linked = segments.map((segment) => ({ ...segment, blob: links.get(segment.blob)! }));
    this.use(linked);
    return linked;
  }

  /** A key that is not there is deleted already. */
  async delete(name: string, key: string, when: Precondition = {}): Promise<void> {
    return this.exclusively(`object:${name}/${key}`, async () => {
      const bucket = this.bucket(name);
      const object = bucket.objects.get(key);
      if (!object) return;
      this.checkPrecondition(name, key, when);
      const file = this.objectFile(name, key);
      await rm(file, { force: true });
      await syncDirectory(path.dirname(file));
      bucket.objects.delete(key);
      bucket.sortedKeys = null;
      this.unuse(object.segments);
    });
  }

  /** Content as a stream. What is deleted or replaced meanwhile stays until its last reader is done. */
  read(segments: readonly Segment[]): Readable & AsyncIterable<Buffer> {
    this.use(segments);
    const stream = Readable.from(this.bytesOf(segments), { objectMode: false, highWaterMark: 1 << 20 });
    stream.once('close', () => this.unuse(segments));
    return stream;
  }

  private async *bytesOf(segments: readonly Segment[]): AsyncGenerator<Buffer> {
    for (const { blob, offset, size } of segments) {
      const options = { start: offset, end: offset + size - 1, highWaterMark: 1 << 20 };
      let left = size;
      for await (const chunk of createReadStream(this.file('blobs', blob), options) as AsyncIterable<Buffer>) {
        left -= chunk.length;
        yield chunk;
      }
      // The reader must hear of it: it would wait for the rest.
      if (left) throw new Error(`the blob ${blob} is ${left} bytes shorter than its record says`);
    }
  }

  /** The file that is the whole content of an object and nothing else, and that nobody writes to; null where there is none. */
  async fileOf({ segments, size }: StoredObject): Promise<string | null> {
    const [only, ...others] = segments;
    if (!only || others.length || only.offset !== 0 || this.places.has(only.blob)) return null;
    const file = this.file('blobs', only.blob);
    // Parts that were not named when their upload was completed may follow.
    return (await stat(file)).size === size ? file : null;
  }

  // Content

  /** Writes a body into a new blob, which the caller uses. Nothing is left of a body that is not what it should be. */
  private async writeBlob(
    body: AsyncIterable<Buffer>,
    expected: Expectation,
  ): Promise<{ content: Content; segments: Segment[] }> {
    const blob = randomUUID();
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
      // No bytes need no blob.
      if (!content.size) return { content, segments: [] };
      await rename(temporary, this.file('blobs', blob));
      await syncDirectory(this.file('blobs'));
      const segments = [{ blob, offset: 0, size: content.size }];
      this.use(segments);
      return { content, segments };
    } catch (error) {
      this.removeBlob(blob);
      throw error;
    } finally {
      await rm(temporary, { force: true });
    }
  }

  /** Writes a body at an offset and checks it on the way. */
  private async writeContent(
    handle: FileHandle,
    offset: number,
    body: AsyncIterable<Buffer>,
    expected: Expectation,
  ): Promise<Content> {
    const check = new ContentCheck(expected);
    await this.checkSpace(expected.length ?? 0);
    let position = offset;
    let unchecked = 0;
    for await (const chunk of gathered(body)) {
      if ((unchecked += chunk.length) > SPACE_INTERVAL) {
        await this.checkSpace(0);
        unchecked = 0;
      }
      check.update(chunk);
      await writeFully(handle, chunk, position);
      position += chunk.length;
    }
    return check.end();
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
    try {
      await this.writeRecord(this.file('uploads', id, 'upload.json'), record);
      // The bucket may have gone meanwhile, and its uploads with it.
      this.objectsOf(bucket);
    } catch (error) {
      await rm(this.file('uploads', id), { recursive: true, force: true });
      throw error;
    }
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
    body: AsyncIterable<Buffer>,
    expected: Expectation,
  ): Promise<{ part: Part; checksums: Content['checksums'] }> {
    if (!Number.isInteger(number) || number < 1 || number > 10_000)
      throw s3Errors.invalidArgument('partNumber must be from 1 to 10000.');
    if ((expected.length ?? 0) > MAX_PART) throw s3Errors.entityTooLarge();
    const place = this.placeOf(upload, number, expected.length);
    const { content, segments } =
      place === null
        ? await this.writeBlob(body, expected)
        : await this.writePartInPlace(upload, number, place, body, expected);
    const part: Part = { number, size: content.size, md5: content.md5, modified: now(), segments };
    return this.exclusively(`upload:${upload.id}`, async () => {
      try {
        this.upload(upload.bucket, upload.key, upload.id);
        await this.writeRecord(this.file('uploads', upload.id, `${number}.part.json`), part);
      } catch (error) {
        this.unuse(segments);
        throw error;
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

  /** Writes a part into the file of its upload; the caller uses the segment. */
  private async writePartInPlace(
    upload: Upload,
    number: number,
    offset: number,
    body: AsyncIterable<Buffer>,
    expected: Expectation,
  ): Promise<{ content: Content; segments: Segment[] }> {
    // Held while it is written, so that the file goes when the upload is aborted meanwhile.
    const hold = [{ blob: upload.id, offset, size: 0 }];
    this.use(hold);
    try {
      const handle = await open(this.file('blobs', upload.id), constants.O_RDWR | constants.O_CREAT, 0o600);
      try {
        const content = await this.writeContent(handle, offset, body, expected);
        await handle.datasync();
        await syncDirectory(this.file('blobs'));
        const segments = [{ blob: upload.id, offset, size: content.size }];
        this.use(segments);
        return { content, segments };
      } finally {
        await handle.close();
      }
    } finally {
      this.unuse(hold);
      this.leavePlace(upload.id, number);
    }
  }

  private leavePlace(id: string, number: number): void {
    const writing = this.places.get(id)!.writing;
    writing.delete(number);
    if (!writing.size && !this.uploads.has(id)) this.places.delete(id);
  }

  /** Makes the object of the parts that are named, and forgets the upload. */
  async completeUpload(
    upload: Upload,
    named: readonly { number: number; etag: string }[],
    when: Precondition,
  ): Promise<StoredObject> {
    return this.exclusively(`upload:${upload.id}`, async () => {
      this.upload(upload.bucket, upload.key, upload.id);
      const parts = chooseParts(upload, named);
      const digests = parts.map(({ md5 }) => Buffer.from(md5, 'hex'));
      const object = await this.commit(
        upload.bucket,
        {
          key: upload.key,
          metadata: upload.metadata,
          headers: upload.headers,
          size: parts.reduce((sum, { size }) => sum + size, 0),
          etag: `${createHash('md5').update(Buffer.concat(digests)).digest('hex')}-${parts.length}`,
          modified: now(),
          checksums: {},
          segments: joinSegments(parts.flatMap(({ segments }) => segments)),
        },
        when,
      );
      await this.forgetUpload(upload);
      await this.trim(upload.id, object);
      return object;
    });
  }

  async abortUpload(upload: Upload): Promise<void> {
    await this.exclusively(`upload:${upload.id}`, async () => {
      this.upload(upload.bucket, upload.key, upload.id);
      await this.forgetUpload(upload);
    });
  }

  private async forgetUpload(upload: Upload): Promise<void> {
    this.uploads.delete(upload.id);
    if (!this.places.get(upload.id)?.writing.size) this.places.delete(upload.id);
    await this.removeDirectory(this.file('uploads', upload.id));
    for (const { segments } of upload.parts.values()) this.unuse(segments);
    this.unuse([{ blob: upload.id, offset: 0, size: 0 }]);
  }

  /** Gives back the space of parts that the finished object left out, at the end of the upload's file. */
  private async trim(blob: string, { segments }: StoredObject): Promise<void> {
    const end = Math.max(0, ...segments.filter((item) => item.blob === blob).map(({ offset, size }) => offset + size));
    if (!end || this.places.has(blob)) return;
    // Another request may have deleted the object already.
    await truncate(this.file('blobs', blob), end).catch(() => {});
  }
}

function ignoreMissingUpload(error: unknown): void {
  if (asS3Error(error)?.code !== 'NoSuchUpload') throw error;
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

async function writeFully(handle: FileHandle, chunk: Buffer, position: number): Promise<void> {
  for (let done = 0; done < chunk.length;)
    done += (await handle.write(chunk, done, chunk.length - done, position + done)).bytesWritten;
}

/** Gathers what arrives in small pieces, so that the disk is written to in large ones. */
async function* gathered(body: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
  let pieces: Buffer[] = [];
  let size = 0;
  for await (const piece of body) {
    pieces.push(piece);
    if ((size += piece.length) < 1 << 20) continue;
    yield Buffer.concat(pieces);
    pieces = [];
    size = 0;
  }
  if (size) yield Buffer.concat(pieces);
}
