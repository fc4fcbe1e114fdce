import { Inject, Injectable } from '@nestjs/common';
import { InjectRepository } from '@nestjs/typeorm';
import { IsNull, Not, Repository } from 'typeorm';
import { ArtifactStore } from '../artifacts/artifact-store.js';
import type { Config } from '../config/config.js';
import { CONFIG } from '../config/config.module.js';
import { Image } from '../images/image.entity.js';

/**
 * Images that a job was making when it ended. The worker registers an image before it uploads and links it last, so that a record without
 * a link, and everything below its id in the store, is what a worker that died has left.
 */
@Injectable()
export class HalfMadeImages {
  constructor(
    @InjectRepository(Image) private readonly images: Repository<Image>,
    private readonly store: ArtifactStore,
    @Inject(CONFIG) private readonly config: Config,
  ) {}

  /** Id of the image that the job finished, where its last words were lost. */
  async findFinished(jobId: string): Promise<string | null> {
    const image = await this.images.findOne({ select: { id: true }, where: { job_id: jobId, link: Not(IsNull()) } });
    return image?.id ?? null;
  }

  /** Removes what the job left half-made: uploads, artifacts, record, in this order. Safe to repeat. */
  async remove(jobId: string): Promise<void> {
    const images = await this.images.find({ select: { id: true }, where: { job_id: jobId, link: IsNull() } });
    for (const { id } of images) {
      await this.removeArtifacts(id);
      await this.images.delete({ id, link: IsNull() });
    }
  }

  private async removeArtifacts(imageId: string): Promise<void> {
    const bucket = this.config.s3.bootImagesBucket;
    await this.store.abortUploads(bucket, `${imageId}/`);
    for await (const { key } of this.store.list(bucket, `${imageId}/`)) await this.store.remove({ bucket, key });
  }
}
