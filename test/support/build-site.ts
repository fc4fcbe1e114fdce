import { tmpdir } from 'node:os';
import path from 'node:path';
import type { Arch } from '../../src/protocol/arch.js';
import type { TemplateValue } from '../../src/protocol/job-spec.js';
import type { JobView } from '../../src/quickstart/api.js';
import { DEMO_RECIPE, packRecipe, type RecipeFiles } from '../../src/quickstart/demo-recipe.js';
import { buildDemoRepository } from '../../src/quickstart/demo-repository.js';
import { registerRecipe } from '../../src/quickstart/register-recipe.js';
import { RepositoryServer } from './repository.js';
import { System } from './system.js';

/** What a test builds from: the demo recipe, but for what is given here. */
export interface RecipeUnderTest {
  /** Files in place of those of the demo recipe, or beside them; null takes one out. */
  files?: Readonly<Record<string, string | null>>;
  /** Path of an archive in place of all of them. */
  archive?: string;
  /** The template dictionary. */
  values?: TemplateValue[];
  type?: string;
  arch?: Arch;
}

/** A system, and a repository of tiny packages on loopback that its recipes install from. */
export class BuildSite {
  private constructor(
    readonly system: System,
    readonly repository: RepositoryServer,
    private readonly keyId: string,
  ) {}

  /** The parameters are those of System.start. */
  static async start(environment: Record<string, string> = {}, prefix: string[] = []): Promise<BuildSite> {
    // KIWI-NG is installed once for all tests: it takes a while, and comes from PyPI.
    return BuildSite.on(
      await System.start({ JOB_KIWI_DIR: path.join(tmpdir(), 'ims-test-kiwi'), ...environment }, prefix),
    );
  }

  /**
   * Gives a system that runs a repository, and somebody to build.
   * @param host address at which builds reach the repository
   */
  static async on(system: System, host?: string): Promise<BuildSite> {
    const packages = system.file('repository');
    await buildDemoRepository(packages);
    const repository = await new RepositoryServer(packages, null, host).start();
    return new BuildSite(system, repository, await system.addKey());
  }

  async stop(): Promise<void> {
    await this.repository.stop();
    await this.system.stop();
  }

  /** Values that the templates of the demo recipe are filled with. */
  valuesOf(url: string, packages = 'motd-tiny'): TemplateValue[] {
    return [
      { key: 'REPOSITORY', value: url },
      { key: 'PACKAGES', value: packages },
    ];
  }

  /** Registers a recipe; returns its id. */
  async addRecipe({ files, archive, values, ...more }: RecipeUnderTest = {}): Promise<string> {
    const all = Object.entries({ ...DEMO_RECIPE, ...files }).filter(([, text]) => text !== null);
    const packed =
      archive ?? (await packRecipe(Object.fromEntries(all) as RecipeFiles, this.system.file(`r${Math.random()}.tgz`)));
    return registerRecipe(this.system.api, this.system.store, 'ims', {
      name: 'tiny',
      archive: packed,
      values: values ?? this.valuesOf(this.repository.url),
      ...more,
    });
  }

  async startJob(recipeId: string, more: object = {}): Promise<JobView> {
    return this.system.api.request('POST', '/jobs', {
      job_type: 'create',
      artifact_id: recipeId,
      public_key_id: this.keyId,
      image_root_archive_name: 'built',
      ...more,
    });
  }

  /** Starts a customize job on an image. */
  async customize(imageId: string, more: object = {}): Promise<JobView> {
    return this.system.startJob(imageId, this.keyId, more);
  }

  /** Builds a recipe that fails; returns the reason. Nothing may be left, neither here nor in the store. */
  async reasonOf(recipe: RecipeUnderTest, more: object = {}, seconds = 60): Promise<string> {
    const { system } = this;
    const images = () => system.api.request<{ id: string }[]>('GET', '/images');
    const recipeId = await this.addRecipe(recipe);
    const before = [await system.artifacts(), await images()];
    const { id } = await this.startJob(recipeId, more);
    const job = await system.waitFor(id, 'error', seconds);
    if (job.resultant_image_id !== null) throw new Error('the job that failed has an image');
    expect([await system.artifacts(), await images()]).toEqual(before);
    await system.api.request('DELETE', `/jobs/${id}`);
    await system.expectNoTraces(id);
    return job.status_reason!;
  }
}
