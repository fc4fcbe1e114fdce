import { randomUUID } from 'node:crypto';
import { Injectable } from '@nestjs/common';
import { InjectRepository } from '@nestjs/typeorm';
import { type EntityManager, IsNull, QueryFailedError, Repository } from 'typeorm';
import { problems } from '../errors/problems.js';
import type { ArtifactLink } from '../protocol/artifact-link.js';
import { Image } from './image.entity.js';
import { ImageLinks } from './image-links.js';
import {
  changeMetadata,
  type ImageMetadata,
  type MetadataChange,
  readMetadata,
  readMetadataChange,
} from './image-metadata.js';
import type { CreateImageOfJob, UpdateImage } from './images.dto.js';

/** Index that lets live images not share a link. */
const LINK_INDEX = 'images_link_path';
/** Index that lets a job have one unlinked image. */
const JOB_INDEX = 'images_unlinked_job';

function violates(error: unknown, index: string): boolean {
  return error instanceof QueryFailedError && (error.driverError as { constraint?: string }).constraint === index;
}

@Injectable()
export class ImagesService {
  constructor(
    @InjectRepository(Image) private readonly images: Repository<Image>,
    private readonly links: ImageLinks,
  ) {}

  list(): Promise<Image[]> {
    return this.images.find({ order: { created: 'ASC', id: 'ASC' } });
  }

  async get(id: string): Promise<Image> {
    const image = await this.images.findOneBy({ id });
    if (!image) throw problems.noSuchRecord('image', id);
    return image;
  }

  async create(body: CreateImageOfJob): Promise<Image> {
    const metadata = metadataOf(body.metadata);
    if (body.link) await this.links.check(body.link);
    const image = this.images.create({
      id: randomUUID(),
      created: new Date(),
      name: body.name,
      link: body.link ?? null,
      arch: body.arch ?? 'x86_64',
      metadata,
      job_id: body.job_id ?? null,
      deleted: null,
    });
    return this.insert(image);
  }

  /** A worker that asks again for the image of its job, since an answer was lost, gets the one that it has. */
  private async insert(image: Image): Promise<Image> {
    try {
      await this.images.insert(image);
      return image;
    } catch (error) {
      if (violates(error, JOB_INDEX)) return this.images.findOneByOrFail({ job_id: image.job_id!, link: IsNull() });
      throw violates(error, LINK_INDEX) ? problems.linkInUse(image.link!.path) : error;
    }
  }

  async update(id: string, body: UpdateImage): Promise<Image> {
    const change = body.metadata === undefined ? null : changeOf(body.metadata);
    const { link } = await this.get(id);
    // What is in the store is looked at before the row is locked: a slow store must not hold it.
    if (body.link && !link) await this.links.check(body.link);
    return this.images.manager
      .transaction((manager) => applyChange(manager, id, body, change))
      .catch((error: unknown) => {
        throw violates(error, LINK_INDEX) ? problems.linkInUse(body.link!.path) : error;
      });
  }

  /** Hides the record. Its artifacts stay where they are until the record is purged. */
  async markDeleted(id: string): Promise<void> {
    const { affected } = await this.images.softDelete({ id });
    if (!affected) throw problems.noSuchRecord('image', id);
  }

  async markAllDeleted(): Promise<void> {
    await this.images.createQueryBuilder().softDelete().where('deleted IS NULL').execute();
  }

  /** Removes the record for good, and with `cascade` its artifacts. What the store keeps from being removed never keeps the record. */
  async purge(id: string, cascade: boolean): Promise<void> {
    const image = await this.get(id);
    await this.images.delete({ id });
    if (cascade && image.link) await this.links.removeArtifacts(image.link);
  }

  async purgeAll(cascade: boolean): Promise<void> {
    for (const { id } of await this.list()) await this.purge(id, cascade);
  }
}

function metadataOf(given: unknown): ImageMetadata {
  if (given === undefined) return {};
  const read = readMetadata(given);
  if ('errors' in read) throw problems.invalid({ metadata: read.errors });
  return read.metadata;
}

function changeOf(given: unknown): MetadataChange {
  const read = readMetadataChange(given);
  if ('errors' in read) throw problems.invalid({ metadata: read.errors });
  return read.change;
}

/** The same link again is fine, so that a client may repeat a request; another one is not. */
function linkAfter(link: ArtifactLink | null, given: ArtifactLink): ArtifactLink {
  if (!link) return { ...given };
  const isSame = link.path === given.path && (!given.etag || link.etag === given.etag);
  if (!isSame) throw problems.linkConflict();
  return link;
}

async function applyChange(
  manager: EntityManager,
  id: string,
  body: UpdateImage,
  change: MetadataChange | null,
): Promise<Image> {
  const image = await manager.findOne(Image, { where: { id }, lock: { mode: 'pessimistic_write' } });
  if (!image) throw problems.noSuchRecord('image', id);
  const values = {
    link: body.link ? linkAfter(image.link, body.link) : image.link,
    arch: body.arch ?? image.arch,
    metadata: change ? changeMetadata(image.metadata, change) : image.metadata,
  };
  await manager.update(Image, id, values);
  return Object.assign(image, values);
}
