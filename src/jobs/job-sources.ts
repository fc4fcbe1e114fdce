import { Injectable } from '@nestjs/common';
import { InjectRepository } from '@nestjs/typeorm';
import { Repository } from 'typeorm';
import { ArtifactStore, NoSuchArtifact } from '../artifacts/artifact-store.js';
import { problems } from '../errors/problems.js';
import { Image } from '../images/image.entity.js';
import { ImageLinks } from '../images/image-links.js';
import { locationOf, rootfsOf } from '../images/manifest.js';
import type { JobRequest, JobSource } from './job-plan.js';

const MD5 = /^[0-9a-f]{32}$/i;

/** Finds what a job starts from, and checks that it is there, so that a job which cannot work is never begun. */
@Injectable()
export class JobSources {
  constructor(
    @InjectRepository(Image) private readonly images: Repository<Image>,
    private readonly links: ImageLinks,
    private readonly store: ArtifactStore,
  ) {}

  /** @throws Problem where there is no such image, it has no link, or what it links to is missing or not what it has to be */
  async get(request: Pick<JobRequest, 'job_type' | 'artifact_id'>): Promise<JobSource> {
    // Recipes come with the whole records API; until then no create job has a source.
    if (request.job_type === 'create') throw problems.jobSourceMissing('recipe', request.artifact_id);
    const image = await this.images.findOneBy({ id: request.artifact_id });
    if (!image) throw problems.jobSourceMissing('image', request.artifact_id);
    if (!image.link) throw problems.jobSourceUnlinked('image', image.id);
    const rootfs = rootfsOf(await this.links.readManifest(image.link));
    const artifact = locationOf(rootfs);
    const { size, etag, metadata } = await this.store.head(artifact).catch((error: unknown) => {
      throw error instanceof NoSuchArtifact ? problems.noSuchArtifact(rootfs.link.path) : error;
    });
    // What stands at the artifact itself is newer than what the manifest says of it.
    const md5 = [metadata['md5sum'], rootfs.md5].find((text) => text && MD5.test(text))?.toLowerCase() ?? null;
    return { arch: image.arch, requireDkms: null, artifact: { artifact, etag, size, md5 } };
  }
}
