import { randomUUID } from 'node:crypto';
import type { ArtifactLocation } from '../../src/protocol/artifact-link.js';
import { linkPath } from '../../src/protocol/artifact-link.js';
import { ARTIFACT_TYPE } from '../../src/protocol/image-manifest.js';
import type { TestApp } from './app.js';

const PUBLIC_KEY = 'ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ0Jv7vDqmPHyeLAEnxxDcQ9ahvQrC9PtCpNSWZ3xJq0 test';

/** Sends a request that has to work, and returns the record that it answers. */
async function create<T>(app: TestApp, path: string, body: object): Promise<T> {
  const answer = await app.send('POST', path, { body });
  if (answer.status !== 201) throw new Error(`POST ${path}: ${answer.status} ${answer.content.toString()}`);
  return answer.body as T;
}

/** Registers a public key. Returns its id. */
export async function aPublicKey(app: TestApp): Promise<string> {
  return (await create<{ id: string }>(app, '/v3/public-keys', { name: 'test', public_key: PUBLIC_KEY })).id;
}

/** Registers an image that has no link yet. Returns its id. */
export async function anUnlinkedImage(app: TestApp): Promise<string> {
  return (await create<{ id: string }>(app, '/v3/images', { name: 'without a link' })).id;
}

/** An image with what its link leads to. */
export interface LinkedImage {
  id: string;
  manifest: ArtifactLocation;
  rootfs: ArtifactLocation;
}

/** Stores a root file system and a manifest, and registers an image that links to it. */
export async function anImage(app: TestApp, { arch = 'x86_64' } = {}): Promise<LinkedImage> {
  const bucket = app.config.s3.bootImagesBucket;
  const directory = randomUUID();
  const rootfs = { bucket, key: `${directory}/rootfs` };
  const manifest = { bucket, key: `${directory}/manifest.json` };
  const { md5, etag } = await app.store.put(rootfs, { body: Buffer.from('a root file system') });
  const link = { path: linkPath(rootfs), etag, type: 's3' };
  const content = { version: '1.0', created: '', artifacts: [{ link, md5, type: ARTIFACT_TYPE.rootfs }] };
  const stored = await app.store.put(manifest, { body: Buffer.from(JSON.stringify(content)) });
  const body = { name: 'test', arch, link: { path: linkPath(manifest), etag: stored.etag, type: 's3' } };
  return { id: (await create<{ id: string }>(app, '/v3/images', body)).id, manifest, rootfs };
}
