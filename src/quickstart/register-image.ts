import type { ArtifactStore, StoredArtifact } from '../artifacts/artifact-store.js';
import { linkPath } from '../protocol/artifact-link.js';
import { ARTIFACT_TYPE, type ManifestArtifact } from '../protocol/image-manifest.js';
import type { Api } from './api.js';
import type { DemoImage } from './demo-image.js';

/** The name of the object and the type in the manifest of each artifact. */
const ARTIFACTS = {
  rootfs: ['rootfs', ARTIFACT_TYPE.rootfs],
  kernel: ['kernel', ARTIFACT_TYPE.kernel],
  initrd: ['initrd', ARTIFACT_TYPE.initrd],
  bootParameters: ['boot_parameters', ARTIFACT_TYPE.bootParameters],
} as const satisfies Record<keyof DemoImage, readonly [string, string]>;

function manifestArtifact(bucket: string, key: string, type: string, { etag, md5 }: StoredArtifact): ManifestArtifact {
  return { link: { path: linkPath({ bucket, key }), etag, type: 's3' }, md5, type };
}

/** Uploads an image and registers it, as "Import an External Image to IMS" tells operators to. Returns the id of its record. */
export async function registerImage(
  api: Api,
  store: ArtifactStore,
  bucket: string,
  name: string,
  image: DemoImage,
): Promise<string> {
  const { id } = await api.request<{ id: string }>('POST', '/images', { name, arch: 'x86_64' });
  const artifacts: ManifestArtifact[] = [];
  for (const [part, [object, type]] of Object.entries(ARTIFACTS)) {
    const key = `${id}/${object}`;
    artifacts.push(
      manifestArtifact(
        bucket,
        key,
        type,
        await store.put({ bucket, key }, { body: { file: image[part as keyof DemoImage] } }),
      ),
    );
  }
  const created = new Date().toISOString().replace('T', ' ').replace('Z', '000');
  const body = Buffer.from(JSON.stringify({ version: '1.0', created, artifacts }, null, 4));
  const location = { bucket, key: `${id}/manifest.json` };
  const { etag } = await store.put(location, { body });
  await api.request('PATCH', `/images/${id}`, { link: { path: linkPath(location), etag, type: 's3' } });
  return id;
}
