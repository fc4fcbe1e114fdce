import { Injectable, Logger } from '@nestjs/common';
import { ArtifactStore, NoSuchArtifact } from '../artifacts/artifact-store.js';
import { problems } from '../errors/problems.js';
import { type ArtifactLink, type ArtifactLocation, findLocation } from '../protocol/artifact-link.js';
import { type ImageManifest, MANIFEST_LIMIT } from '../protocol/image-manifest.js';
import { BadManifest, locationOf, parseManifest } from './manifest.js';

/** Checks that what an image links to is there and is a manifest. */
@Injectable()
export class ImageLinks {
  private readonly log = new Logger(ImageLinks.name);

  constructor(private readonly store: ArtifactStore) {}

  /**
   * Reads the manifest behind a link.
   * @throws Problem (422) where it is missing or not usable
   */
  async readManifest(link: ArtifactLink): Promise<ImageManifest> {
    const location = findLocation(link.path);
    if (!location) throw problems.invalid({ link: { path: ['Must be s3://<bucket>/<key>.'] } });
    const { size } = await this.head(location, link.path);
    if (size > MANIFEST_LIMIT) throw problems.badManifest(link.path, `it is larger than ${MANIFEST_LIMIT} bytes`);
    try {
      return parseManifest(await this.store.readSmall(location, MANIFEST_LIMIT));
    } catch (error) {
      if (error instanceof BadManifest) throw problems.badManifest(link.path, error.message);
      throw error;
    }
  }

  /** Checks the manifest and that every artifact that it lists is there. */
  async check(link: ArtifactLink): Promise<void> {
    const manifest = await this.readManifest(link);
    await Promise.all(manifest.artifacts.map((artifact) => this.head(locationOf(artifact), artifact.link.path)));
  }

  /** Removes what a link leads to. What is missing, or cannot be read or removed, is left and said in the log. */
  async removeArtifacts(link: ArtifactLink): Promise<void> {
    const manifest = await this.readManifest(link).catch((error: Error) => this.keep(link.path, error));
    const paths = [...(manifest?.artifacts ?? []).map((artifact) => artifact.link.path), link.path];
    for (const path of paths) {
      const location = findLocation(path);
      if (location) await this.store.remove(location).catch((error: Error) => this.keep(path, error));
    }
  }

  private keep(path: string, error: Error): null {
    this.log.warn('left an artifact of a deleted image', { path, reason: error.message });
    return null;
  }

  private async head(location: ArtifactLocation, path: string) {
    return this.store.head(location).catch((error: unknown) => {
      throw error instanceof NoSuchArtifact ? problems.noSuchArtifact(path) : error;
    });
  }
}
