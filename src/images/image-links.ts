import { Injectable } from '@nestjs/common';
import { ArtifactStore, NoSuchArtifact } from '../artifacts/artifact-store.js';
import { problems } from '../errors/problems.js';
import { type ArtifactLink, type ArtifactLocation, findLocation } from '../protocol/artifact-link.js';
import { type ImageManifest, MANIFEST_LIMIT } from '../protocol/image-manifest.js';
import type { FoundArtifact } from '../relocations/relocatable.js';
import { BadManifest, locationOf, parseManifest, parseManifestList } from './manifest.js';

/** Media type of a manifest in the list of a deleted image. */
export const MANIFEST_TYPE = 'application/vnd.cray.image.manifest';

/** Checks that what an image links to is there and is a manifest. */
@Injectable()
export class ImageLinks {
  constructor(private readonly store: ArtifactStore) {}

  /**
   * Reads the manifest behind a link.
   * @throws Problem (422) where it is missing or not usable
   */
  readManifest(link: ArtifactLink): Promise<ImageManifest> {
    return this.readAs(link, parseManifest);
  }

  private async readAs(link: ArtifactLink, parse: (content: Buffer) => ImageManifest): Promise<ImageManifest> {
    const location = findLocation(link.path);
    if (!location) throw problems.invalid({ link: { path: ['Must be s3://<bucket>/<key>.'] } });
    const { size } = await this.head(location, link.path);
    if (size > MANIFEST_LIMIT) throw problems.badManifest(link.path, `it is larger than ${MANIFEST_LIMIT} bytes`);
    try {
      return parse(await this.store.readSmall(location, MANIFEST_LIMIT));
    } catch (error) {
      if (error instanceof BadManifest) throw problems.badManifest(link.path, error.message);
      throw error;
    }
  }

  /** As `readManifest`, for the list of a deleted image, which lists the manifest too and may lack the rootfs. */
  async readList(link: ArtifactLink): Promise<ImageManifest> {
    return this.readAs(link, parseManifestList);
  }

  /**
   * Checks the manifest and that every artifact that it lists is there. Returns all that the link leads to, the manifest last.
   * @throws Problem (422)
   */
  async check(link: ArtifactLink): Promise<FoundArtifact[]> {
    const { artifacts } = await this.readManifest(link);
    await Promise.all(artifacts.map((artifact) => this.head(locationOf(artifact), artifact.link.path)));
    const found = artifacts.map(({ type, md5, link: { path } }) => ({ type, path, md5: md5 ?? null }));
    return [...found, { type: MANIFEST_TYPE, path: link.path, md5: null }];
  }

  private async head(location: ArtifactLocation, path: string) {
    return this.store.head(location).catch((error: unknown) => {
      throw error instanceof NoSuchArtifact ? problems.noSuchArtifact(path) : error;
    });
  }
}
