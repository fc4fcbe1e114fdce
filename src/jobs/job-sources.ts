import { Injectable } from '@nestjs/common';
import { InjectRepository } from '@nestjs/typeorm';
import { Repository } from 'typeorm';
import { ArtifactStore, NoSuchArtifact } from '../artifacts/artifact-store.js';
import { problems } from '../errors/problems.js';
import { Image } from '../images/image.entity.js';
import { ImageLinks } from '../images/image-links.js';
import { locationOf, rootfsOf } from '../images/manifest.js';
import { type ArtifactLocation, findLocation } from '../protocol/artifact-link.js';
import { Recipe } from '../recipes/recipe.entity.js';
import type { JobRequest, JobSource } from './job-plan.js';

const MD5 = /^[0-9a-f]{32}$/i;

/** Finds what a job starts from, and checks that it is there, so that a job which cannot work is never begun. */
@Injectable()
export class JobSources {
  constructor(
    @InjectRepository(Image) private readonly images: Repository<Image>,
    @InjectRepository(Recipe) private readonly recipes: Repository<Recipe>,
    private readonly links: ImageLinks,
    private readonly store: ArtifactStore,
  ) {}

  /** @throws Problem where there is no such image, it has no link, or what it links to is missing or not what it has to be */
  async get(request: Pick<JobRequest, 'job_type' | 'artifact_id'>): Promise<JobSource> {
    return request.job_type === 'create'
      ? this.recipeSource(request.artifact_id)
      : this.imageSource(request.artifact_id);
  }

  private async recipeSource(id: string): Promise<JobSource> {
    const recipe = await this.recipes.findOneBy({ id });
    if (!recipe) throw problems.jobSourceMissing('recipe', id);
    if (!recipe.link) throw problems.jobSourceUnlinked('recipe', recipe.id);
    const artifact = findLocation(recipe.link.path)!;
    const found = await this.head(artifact, recipe.link.path);
    return {
      arch: recipe.arch,
      requireDkms: recipe.require_dkms,
      artifact: { artifact, ...found },
      recipe: {
        name: recipe.name,
        recipe_type: recipe.recipe_type,
        template_dictionary: recipe.template_dictionary ?? [],
      },
    };
  }

  private async imageSource(id: string): Promise<JobSource> {
    const image = await this.images.findOneBy({ id });
    if (!image) throw problems.jobSourceMissing('image', id);
    if (!image.link) throw problems.jobSourceUnlinked('image', image.id);
    const rootfs = rootfsOf(await this.links.readManifest(image.link));
    const artifact = locationOf(rootfs);
    const found = await this.head(artifact, rootfs.link.path, rootfs.md5);
    return { arch: image.arch, requireDkms: null, artifact: { artifact, ...found }, recipe: null };
  }

  /** @param listed md5 that the manifest gives: what stands at the artifact itself is newer */
  private async head(location: ArtifactLocation, path: string, listed?: string) {
    const { size, etag, metadata } = await this.store.head(location).catch((error: unknown) => {
      throw error instanceof NoSuchArtifact ? problems.noSuchArtifact(path) : error;
    });
    const md5 = [metadata['md5sum'], listed].find((text) => text && MD5.test(text))?.toLowerCase() ?? null;
    return { size, etag, md5 };
  }
}
