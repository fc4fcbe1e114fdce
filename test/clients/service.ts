import { createHash } from 'node:crypto';
import { CreateBucketCommand, HeadObjectCommand, PutObjectCommand, S3ServiceException } from '@aws-sdk/client-s3';
import { S3ArtifactStore } from '../../src/artifacts/s3-artifact-store.js';
import { ARTIFACT_TYPE } from '../../src/protocol/image-manifest.js';
import { startTestApp, type TestApp } from '../support/app.js';
import { createTestDatabase, type TestDatabase } from '../support/database.js';
import { CREDENTIALS, S3UnderTest } from '../support/s3-under-test.js';
import { ClientSession, type Library, pythonJson } from './client-session.js';

export const BUCKET = 'boot-images';

/** One artifact of a manifest, as ims-python-helper writes it: members in the order of their names. */
export interface Uploaded {
  link: { etag: string; path: string; type: 's3' };
  md5: string;
  type: string;
}

/** The service on a real database and a real S3 server, with clients around it. Its jobs are told about by the tests. */
export class Service {
  private readonly sessions: ClientSession[] = [];

  private constructor(
    readonly app: TestApp,
    readonly s3: S3UnderTest,
    private readonly store: S3ArtifactStore,
    private readonly database: TestDatabase,
  ) {}

  static async start(): Promise<Service> {
    const [database, s3] = await Promise.all([createTestDatabase(), S3UnderTest.start()]);
    for (const bucket of ['ims', BUCKET]) await s3.client.send(new CreateBucketCommand({ Bucket: bucket }));
    const store = new S3ArtifactStore({
      endpoint: s3.endpoint,
      ...CREDENTIALS,
      sslValidate: true,
      region: 'us-east-1',
    });
    return new Service(await startTestApp({ databaseUrl: database.url, store }), s3, store, database);
  }

  /** A client with a connection of its own; see ClientSession. */
  client(base: string, more: readonly string[] = [], library?: Library): ClientSession {
    const session = new ClientSession(this.app.origin, base, library, more);
    this.sessions.push(session);
    return session;
  }

  async stop(): Promise<void> {
    for (const session of this.sessions) session.close();
    await this.app.close();
    this.store.close();
    await this.s3.close();
    await this.database.drop();
  }

  /** Whether an object is there; its ETag without quotes then. */
  async etagOf(key: string, bucket = BUCKET): Promise<string | null> {
    try {
      const { ETag = '' } = await this.s3.client.send(new HeadObjectCommand({ Bucket: bucket, Key: key }));
      return ETag.replaceAll('"', '');
    } catch (error) {
      if (error instanceof S3ServiceException && error.$metadata.httpStatusCode === 404) return null;
      throw error;
    }
  }

  /** Uploads as ims-python-helper does: with the md5 of the content as metadata, then a HEAD for the ETag. */
  async upload(key: string, content: string, type: string, bucket = BUCKET): Promise<Uploaded> {
    const md5 = createHash('md5').update(content).digest('hex');
    await this.s3.client.send(
      new PutObjectCommand({ Bucket: bucket, Key: key, Body: content, Metadata: { md5sum: md5 } }),
    );
    const etag = (await this.etagOf(key, bucket))!;
    return { link: { etag, path: `s3://${bucket}/${key}`, type: 's3' }, md5, type };
  }

  /** Uploads root file system, kernel and initrd of an image and their manifest. Returns the link to the manifest. */
  async uploadImage(id: string): Promise<{ path: string; etag: string; type: 's3' }> {
    const artifacts = [
      await this.upload(`${id}/rootfs`, `root of ${id}`, ARTIFACT_TYPE.rootfs),
      await this.upload(`${id}/kernel`, `kernel of ${id}`, 'application/vnd.cray.image.kernel'),
      await this.upload(`${id}/initrd`, `initrd of ${id}`, 'application/vnd.cray.image.initrd'),
    ];
    const manifest = { artifacts, created: '2026-11-24 02:00:00.000000', version: '1.0' };
    const { link } = await this.upload(`${id}/manifest.json`, pythonJson(manifest), 'application/json');
    return { path: link.path, etag: link.etag, type: 's3' };
  }
}

/** A key that ssh-keygen made, as its file holds it. */
export const PUBLIC_KEY_FILE =
  'ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBhF9mXk0jYpKpRk5cGkq0yqgW0aYpDk8uQyQ2WQv1pN admin@ncn-m001\n';
