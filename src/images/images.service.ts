import { Injectable } from '@nestjs/common';
import { InjectRepository } from '@nestjs/typeorm';
import { type EntityManager, IsNull, Repository } from 'typeorm';
import type { DryRun } from '../database/dry-run.dto.js';
import type { Json, Members, WouldBe } from '../database/json.js';
import type { Purge } from '../database/purge.dto.js';
import type { KnowsRecords } from '../database/record-exists.guard.js';
import { RecordStore, type State, violates } from '../database/record-store.js';
import { Where } from '../database/where.js';
import { problems } from '../errors/problems.js';
import type { NewRecord } from '../idempotency/new-record.js';
import { linkAfter, LinkedRecords } from '../relocations/linked-records.js';
import { ImageArtifacts } from './image-artifacts.js';
import { Image } from './image.entity.js';
import { ImageLinks } from './image-links.js';
import {
  changeMetadata,
  type ImageMetadata,
  type MetadataChange,
  readMetadata,
  readMetadataChange,
} from './image-metadata.js';
import type { CreateImageOfJob, ImagesQuery, UpdateImage } from './images.dto.js';

/** Index that lets live images not share a link. */
const LINK_INDEX = 'images_link_path';
/** Index that lets a job have one unlinked image. */
const JOB_INDEX = 'images_unlinked_job';

@Injectable()
export class ImagesService implements KnowsRecords {
  private readonly records: RecordStore<Image>;

  constructor(
    @InjectRepository(Image) private readonly images: Repository<Image>,
    private readonly links: ImageLinks,
    private readonly artifacts: ImageArtifacts,
    private readonly linked: LinkedRecords,
  ) {
    this.records = new RecordStore(images, 'image');
    this.linked.register(artifacts);
  }

  list(members: Members, state?: State, query?: ImagesQuery): Promise<Json> {
    return this.records.list(members, state, query, tagged(query));
  }

  get(id: string, members: Members, state?: State): Promise<Json> {
    return this.records.get(id, members, state);
  }

  refuseMissing(id: string, state?: State): Promise<void> {
    return this.records.refuseMissing(id, state);
  }

  async create(body: CreateImageOfJob, members: Members, record: NewRecord): Promise<Json> {
    const repeated = await this.records.findRepeated(record, members);
    if (repeated) return repeated;
    const metadata = metadataOf(body.metadata);
    const found = body.link ? await this.links.check(body.link) : null;
    const values = {
      id: record.id,
      name: body.name,
      link: body.link ?? null,
      arch: body.arch ?? 'x86_64',
      metadata,
      job_id: body.job_id ?? null,
      recipe: body.recipe ?? null,
      artifacts_known: found !== null,
    } as const;
    try {
      if (!found) return await this.records.add(values, members);
      return await this.write(body.link?.path, async (manager) => {
        await this.linked.add(manager, values.id, found);
        return this.records.add(values, members, manager);
      });
    } catch (error) {
      if (!violates(error, JOB_INDEX)) throw error;
      // A worker that asks again for the image of its job, since an answer was lost, gets the one that it has.
      const { id } = await this.images.findOneByOrFail({ job_id: values.job_id!, link: IsNull() });
      return this.records.get(id, members);
    }
  }

  async update(id: string, body: UpdateImage, members: Members): Promise<Json> {
    const change = body.metadata === undefined ? null : changeOf(body.metadata);
    const known = await this.images.findOneBy({ id });
    // What is in the store is looked at before the row is locked: a slow store must not hold it.
    const found = body.link && known && !known.link ? await this.links.check(body.link) : null;
    return this.write(body.link?.path, async (manager) => {
      const image = await this.records.lock(manager, id);
      const { link, isNew } = linkAfter(image, body.link);
      if (isNew) await this.linked.add(manager, id, found ?? (await this.links.check(link!)));
      const values = {
        link,
        artifacts_known: image.artifacts_known || isNew,
        arch: body.arch ?? image.arch,
        metadata: change ? changeMetadata(image.metadata, change) : image.metadata,
      };
      return this.records.update(id, values, members, manager);
    });
  }

  private write(path: string | undefined, work: (manager: EntityManager) => Promise<Json>): Promise<Json> {
    return this.images.manager.transaction(work).catch((error: unknown) => {
      throw violates(error, LINK_INDEX) ? problems.linkInUse(path!) : error;
    });
  }

  /** Hides the record, or all, and puts the artifacts out of the way; they can be brought back. */
  async markDeleted({ dry_run }: DryRun, id?: string): Promise<WouldBe | undefined> {
    if (dry_run) return this.records.wouldDelete('all', 'live', id);
    await this.linked.markDeleted(this.records, this.artifacts, id);
    return undefined;
  }

  /** Brings a deleted record back, or all. */
  undelete(id?: string): Promise<void> {
    return id
      ? this.linked.undelete(this.records, this.artifacts, id)
      : this.linked.undeleteAll(this.records, this.artifacts);
  }

  /** Removes the record for good, or all of a state, and with `cascade` the artifacts. */
  async purge({ dry_run, cascade = true }: Purge, state: State, id?: string): Promise<WouldBe | undefined> {
    if (dry_run) return this.records.wouldDelete(state === 'live' ? 'original' : 'all', state, id);
    await this.linked.purge(this.records, this.artifacts, { state, cascade, id });
    return undefined;
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

/** Which images have the tag that a list asks for. */
function tagged({ metadata_key: key, metadata_value: value }: ImagesQuery = {}): Where {
  const where = new Where();
  if (key === undefined && value !== undefined) throw problems.badQuery('metadata_value needs a metadata_key');
  if (key === undefined) return where;
  if (value === undefined) return where.and((place) => `t."metadata" ? ${place(key)}`);
  return where.and((place) => `t."metadata" @> ${place(JSON.stringify({ [key]: value }))}::jsonb`);
}
