import type { FileHandle } from 'node:fs/promises';
import type { StoredArtifact } from '../artifacts/artifact-store.js';
import type { ArtifactLink } from '../protocol/artifact-link.js';
import { linkPath } from '../protocol/artifact-link.js';
import { ARTIFACT_TYPE, type ImageManifest, type ManifestArtifact } from '../protocol/image-manifest.js';
import type { BootFiles } from './boot-files.js';
import type { ServerRecord } from './ims-client.js';
import type { PhaseContext } from './phases/phase.js';
import type { RunningPacking } from './squashfs/pack.js';
import { uploadWhileWritten } from './upload-while-written.js';

/** What is known of an image beside its files to boot with. */
export interface ImageContents {
  /** Bytes that the packed root may have; a guess. */
  expectedSize: number;
  /** File that lists the packages of the image; null where there is no list. */
  packages: string | null;
}

/** Longest name in the metadata of an artifact; a store takes 2 KiB of metadata in all. */
const NAME_LIMIT = 1024;

/**
 * Uploads an image that is being packed, with what it boots with and a manifest, and registers it. The record comes first and its link
 * last: an image without a link is what a worker that died has left, and all of it can be found by the record.
 */
export async function publishImage(
  context: PhaseContext,
  packing: RunningPacking,
  boot: BootFiles,
  contents: ImageContents,
): Promise<ServerRecord> {
  const { job, ims, log } = context;
  const image = await ims.createImage({
    name: job.image_root_archive_name,
    arch: job.arch,
    job_id: job.job_id,
    ...(job.job_type === 'create' && {
      recipe: { id: job.recipe.id, name: job.recipe.name, etag: job.source.etag },
    }),
  });
  const upload = new ImageUpload(context, image.id);
  const artifacts = (
    await Promise.all([
      upload.rootfs(packing, contents.expectedSize),
      upload.bootFile('kernel', boot.kernel),
      upload.bootFile('initrd', boot.initrd),
      boot.parameters && upload.bootFile('bootParameters', boot.parameters),
      contents.packages === null ? null : upload.file('packages', contents.packages),
    ])
  ).filter((artifact) => artifact !== null);
  const manifest = await upload.manifest(artifacts);
  const record = await ims.linkImage(image.id, manifest.link);
  log('uploaded', { image_id: image.id, artifacts: artifacts.length });
  tellOperators({
    ims_image_artifacts: [...artifacts, manifest],
    ims_image_record: record,
    ims_job_record: await ims.report({ resultant_image_id: record.id }),
    result: 'success',
  });
  return record;
}

/** What operators look for in the log, and what it is made of: as the tool prints it by which the original uploads. */
function tellOperators(uploaded: Readonly<Record<string, unknown>>): void {
  process.stdout.write(`${JSON.stringify(uploaded, null, 4)}\n`);
}

/** Keys of artifacts below the id of their image, as clients know them. */
const KEY = {
  rootfs: 'rootfs',
  kernel: 'kernel',
  initrd: 'initrd',
  bootParameters: 'boot_parameters',
  packages: 'packages',
  manifest: 'manifest.json',
} as const;

/** What a manifest lists. */
type ArtifactName = Exclude<keyof typeof KEY, 'manifest'>;

/** As an artifact of the image, of which it lists all others. */
interface UploadedManifest {
  link: ArtifactLink;
  md5: string;
  type: 'application/json';
}

/** The artifacts of one image. */
class ImageUpload {
  private readonly metadata: Record<string, string>;

  constructor(
    private readonly context: PhaseContext,
    private readonly imageId: string,
  ) {
    this.metadata = {
      'x-shasta-ims-image-name': asciiName(context.job.image_root_archive_name),
      'x-shasta-ims-image-id': imageId,
      'x-shasta-ims-job-id': context.job.job_id,
    };
  }

  async rootfs({ copied, done }: RunningPacking, expectedSize: number): Promise<ManifestArtifact> {
    const { directory, ims, job, log } = this.context;
    const stored = await uploadWhileWritten({
      store: await this.context.openStore(),
      location: this.locationOf('rootfs'),
      metadata: this.metadata,
      file: directory.image,
      written: done,
      copied,
      source: { ...job.source.artifact, etag: job.source.etag },
      expectedSize,
      onProgress: (progress) => ims.reportProgress(progress),
    });
    log('the rootfs is stored', { bytes: stored.size, bytes_sent: stored.bytesSent });
    return this.artifact('rootfs', stored);
  }

  bootFile(name: 'kernel' | 'initrd' | 'bootParameters', file: FileHandle): Promise<ManifestArtifact> {
    return this.file(name, `/proc/self/fd/${file.fd}`);
  }

  async file(name: ArtifactName, file: string): Promise<ManifestArtifact> {
    const store = await this.context.openStore();
    const stored = await store.put(this.locationOf(name), { body: { file }, metadata: this.metadata });
    return this.artifact(name, stored);
  }

  /** Writes the manifest as the original's tools do: sorted, four spaces deep. */
  async manifest(artifacts: ManifestArtifact[]): Promise<UploadedManifest> {
    const manifest: ImageManifest = { artifacts, created: manifestTime(new Date()), version: '1.0' };
    const body = Buffer.from(JSON.stringify(manifest, null, 4));
    const store = await this.context.openStore();
    const { etag, md5 } = await store.put(this.locationOf('manifest'), { body });
    return { link: this.linkTo('manifest', etag), md5, type: 'application/json' };
  }

  private artifact(name: ArtifactName, stored: StoredArtifact): ManifestArtifact {
    return { link: this.linkTo(name, stored.etag), md5: stored.md5, type: ARTIFACT_TYPE[name] };
  }

  private linkTo(name: keyof typeof KEY, etag: string): ArtifactLink {
    return { etag, path: linkPath(this.locationOf(name)), type: 's3' };
  }

  private locationOf(name: keyof typeof KEY) {
    return { bucket: this.context.job.bucket, key: `${this.imageId}/${KEY[name]}` };
  }
}

/** `YYYY-mm-dd HH:MM:SS.ffffff` in UTC. */
function manifestTime(time: Date): string {
  return time.toISOString().replace('T', ' ').replace('Z', '000');
}

/** A name as metadata can carry it: what is not printable ASCII is percent-encoded. */
function asciiName(name: string): string {
  return name
    .toWellFormed()
    .replaceAll(/[^\x20-\x7e]/gu, (character) => encodeURIComponent(character))
    .slice(0, NAME_LIMIT);
}
