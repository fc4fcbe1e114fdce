import { Injectable } from '@nestjs/common';
import { InjectRepository } from '@nestjs/typeorm';
import { Repository } from 'typeorm';
import type { DryRun } from '../database/dry-run.dto.js';
import type { Json, Members, WouldBe } from '../database/json.js';
import type { BuiltListQuery } from '../database/list-query.dto.js';
import type { Purge } from '../database/purge.dto.js';
import type { KnowsRecords } from '../database/record-exists.guard.js';
import { RecordStore, type State, violates } from '../database/record-store.js';
import { problems } from '../errors/problems.js';
import type { NewRecord } from '../idempotency/new-record.js';
import { linkAfter, LinkedRecords } from '../relocations/linked-records.js';
import type { FoundArtifact } from '../relocations/relocatable.js';
import { RecipeArchives } from './recipe-archives.js';
import { Recipe } from './recipe.entity.js';
import type { CreateRecipe, UpdateRecipe } from './recipes.dto.js';

/** Index that lets live recipes not share a link. */
const LINK_INDEX = 'recipes_link_path';

@Injectable()
export class RecipesService implements KnowsRecords {
  private readonly records: RecordStore<Recipe>;

  constructor(
    @InjectRepository(Recipe) private readonly recipes: Repository<Recipe>,
    private readonly archives: RecipeArchives,
    private readonly linked: LinkedRecords,
  ) {
    this.records = new RecordStore(recipes, 'recipe');
    this.linked.register(archives);
  }

  list(members: Members, state?: State, query?: BuiltListQuery): Promise<Json> {
    return this.records.list(members, state, query);
  }

  get(id: string, members: Members, state?: State): Promise<Json> {
    return this.records.get(id, members, state);
  }

  refuseMissing(id: string, state?: State): Promise<void> {
    return this.records.refuseMissing(id, state);
  }

  async create(body: CreateRecipe, members: Members, record: NewRecord): Promise<Json> {
    const repeated = await this.records.findRepeated(record, members);
    if (repeated) return repeated;
    const found = body.link ? await this.archives.check(body.link) : null;
    const values = {
      id: record.id,
      name: body.name,
      link: body.link ?? null,
      recipe_type: body.recipe_type,
      linux_distribution: body.linux_distribution,
      arch: body.arch ?? 'x86_64',
      require_dkms: body.require_dkms ?? true,
      template_dictionary: body.template_dictionary === undefined ? [] : body.template_dictionary,
      artifacts_known: found !== null,
    } as const;
    if (!found) return this.records.add(values, members);
    return this.write(body.link?.path, async (manager) => {
      await this.linked.add(manager, values.id, found);
      return this.records.add(values, members, manager);
    });
  }

  async update(id: string, body: UpdateRecipe, members: Members): Promise<Json> {
    const known = await this.recipes.findOneBy({ id });
    // What is in the store is looked at before the row is locked: a slow store must not hold it.
    const found: FoundArtifact[] | null =
      body.link && known && !known.link ? await this.archives.check(body.link) : null;
    return this.write(body.link?.path, async (manager) => {
      const recipe = await this.records.lock(manager, id);
      const { link, isNew } = linkAfter(recipe, body.link);
      if (isNew) await this.linked.add(manager, id, found ?? (await this.archives.check(link!)));
      const values = {
        link,
        artifacts_known: recipe.artifacts_known || isNew,
        arch: body.arch ?? recipe.arch,
        require_dkms: body.require_dkms ?? recipe.require_dkms,
        template_dictionary: body.template_dictionary ?? recipe.template_dictionary,
      };
      return this.records.update(id, values, members, manager);
    });
  }

  private write(
    path: string | undefined,
    work: (manager: Repository<Recipe>['manager']) => Promise<Json>,
  ): Promise<Json> {
    return this.recipes.manager.transaction(work).catch((error: unknown) => {
      throw violates(error, LINK_INDEX) ? problems.linkInUse(path!) : error;
    });
  }

  /** Hides the record, or all, and puts the archive out of the way; they can be brought back. */
  async markDeleted({ dry_run }: DryRun, id?: string): Promise<WouldBe | undefined> {
    if (dry_run) return this.records.wouldDelete('all', 'live', id);
    await this.linked.markDeleted(this.records, this.archives, id);
    return undefined;
  }

  /** Brings a deleted record back, or all. */
  undelete(id?: string): Promise<void> {
    return id
      ? this.linked.undelete(this.records, this.archives, id)
      : this.linked.undeleteAll(this.records, this.archives);
  }

  /** Removes the record for good, or all of a state, and with `cascade` their archives. */
  async purge({ dry_run, cascade = true }: Purge, state: State, id?: string): Promise<WouldBe | undefined> {
    if (dry_run) return this.records.wouldDelete(state === 'live' ? 'original' : 'all', state, id);
    await this.linked.purge(this.records, this.archives, { state, cascade, id });
    return undefined;
  }
}
