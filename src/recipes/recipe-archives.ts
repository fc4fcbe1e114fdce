import { Injectable } from '@nestjs/common';
import { ArtifactStore, NoSuchArtifact } from '../artifacts/artifact-store.js';
import { problems } from '../errors/problems.js';
import { type ArtifactLink, findLocation } from '../protocol/artifact-link.js';
import { type FoundArtifact, Relocatable } from '../relocations/relocatable.js';
import type { RecordArtifact } from '../relocations/record-artifact.entity.js';

/** The only artifact of a recipe has no manifest that would give it a type. */
const ARCHIVE_TYPE = 'recipe';

/** What recipes lead to: one archive each. */
@Injectable()
export class RecipeArchives extends Relocatable {
  readonly kind = 'recipe';
  readonly table = 'recipes';
  readonly linkedType = ARCHIVE_TYPE;

  constructor(private readonly store: ArtifactStore) {
    super();
  }

  /**
   * Checks that the archive behind a link is there.
   * @throws Problem (422)
   */
  async check(link: ArtifactLink): Promise<FoundArtifact[]> {
    const location = findLocation(link.path);
    if (!location) throw problems.invalid({ link: { path: ['Must be s3://<bucket>/<key>.'] } });
    const { metadata } = await this.store.head(location).catch((error: unknown) => {
      throw error instanceof NoSuchArtifact ? problems.noSuchArtifact(link.path) : error;
    });
    return [{ type: ARCHIVE_TYPE, path: link.path, md5: metadata['md5sum'] ?? null }];
  }

  override async artifactsOf(link: ArtifactLink): Promise<FoundArtifact[] | null> {
    return findLocation(link.path) ? [{ type: ARCHIVE_TYPE, path: link.path, md5: null }] : null;
  }

  override listedAway(link: ArtifactLink): Promise<FoundArtifact[]> {
    return this.check(link);
  }

  override async linkAway(
    _recordId: string,
    home: ArtifactLink,
    artifacts: readonly RecordArtifact[],
  ): Promise<ArtifactLink> {
    const [archive] = artifacts;
    return archive ? { ...home, path: archive.at, etag: archive.etag || home.etag } : home;
  }

  override async forgetAway(): Promise<void> {}
}
