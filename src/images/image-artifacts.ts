import { Inject, Injectable } from '@nestjs/common';
import { ArtifactStore, ArtifactStoreFailure, NoSuchArtifact } from '../artifacts/artifact-store.js';
import type { Config } from '../config/config.js';
import { CONFIG } from '../config/config.module.js';
import { type ArtifactLink, findLocation, linkPath } from '../protocol/artifact-link.js';
import { MANIFEST_LIMIT } from '../protocol/image-manifest.js';
import type { RecordArtifact } from '../relocations/record-artifact.entity.js';
import { type FoundArtifact, Relocatable } from '../relocations/relocatable.js';
import { ImageLinks, MANIFEST_TYPE } from './image-links.js';
import { listedArtifacts } from './manifest.js';

/** What images lead to: all that their manifest lists, and the manifest. */
@Injectable()
export class ImageArtifacts extends Relocatable {
  readonly kind = 'image';
  readonly table = 'images';
  readonly linkedType = MANIFEST_TYPE;

  constructor(
    private readonly store: ArtifactStore,
    private readonly links: ImageLinks,
    @Inject(CONFIG) private readonly config: Config,
  ) {
    super();
  }

  /** Reads as much of a manifest as can be read: a record is deleted however untidy its manifest is. */
  override async artifactsOf(link: ArtifactLink): Promise<FoundArtifact[] | null> {
    const location = findLocation(link.path);
    if (!location) return null;
    const content = await this.store.readSmall(location, MANIFEST_LIMIT).catch(async (error: unknown) => {
      if (error instanceof NoSuchArtifact || (await this.isTooLarge(link, error))) return null;
      throw error;
    });
    const listed = content && listedArtifacts(content);
    return listed && [...listed, { type: MANIFEST_TYPE, path: link.path, md5: null }];
  }

  private async isTooLarge(link: ArtifactLink, error: unknown): Promise<boolean> {
    if (!(error instanceof ArtifactStoreFailure)) return false;
    return (await this.store.head(findLocation(link.path)!)).size > MANIFEST_LIMIT;
  }

  override async listedAway(link: ArtifactLink): Promise<FoundArtifact[]> {
    const { artifacts } = await this.links.readList(link);
    return artifacts.map(({ type, md5, link: { path } }) => ({ type, path, md5: md5 ?? null }));
  }

  /** Writes `deleted_manifest.json`, which lists where everything is now, the manifest itself among it. */
  override async linkAway(
    recordId: string,
    _home: ArtifactLink,
    artifacts: readonly RecordArtifact[],
  ): Promise<ArtifactLink> {
    const location = this.listAway(recordId);
    const list = {
      version: '1.0',
      created: new Date().toISOString().slice(0, 19).replace('T', ' '),
      artifacts: artifacts.map(({ type, md5, etag, at }) => ({
        type,
        ...(md5 && { md5 }),
        link: { etag, path: at, type: 's3' },
      })),
    };
    await this.store.put(location, { body: Buffer.from(JSON.stringify(list)) });
    return { path: linkPath(location), etag: '', type: 's3' };
  }

  override async forgetAway(recordId: string): Promise<void> {
    await this.store.remove(this.listAway(recordId));
  }

  private listAway(recordId: string) {
    return { bucket: this.config.s3.bootImagesBucket, key: `deleted/${recordId}/deleted_manifest.json` };
  }
}
