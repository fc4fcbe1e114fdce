import path from 'node:path';
import type { JobView } from './api.js';
import { DEMO_RECIPE, packRecipe } from './demo-recipe.js';
import { deleteJob, downloadImage, expectAll, type StoryContext } from './image-checks.js';
import { registerRecipe } from './register-recipe.js';

/** What the story of an image that is built needs. */
export interface BuildContext extends StoryContext {
  /** Bucket of recipes. */
  bucket: string;
  /** Address of the repository that the recipe installs from. */
  repository: string;
}

/** The package that the values of the recipe's record add to it. */
const PACKAGE = 'motd-tiny';

/** Registers the demo recipe; returns the id of its record. */
export async function provideRecipe(context: BuildContext): Promise<string> {
  const { api, store, directory, bucket, repository } = context;
  const archive = await packRecipe(DEMO_RECIPE, path.join(directory, 'recipe.tgz'));
  const values = [
    { key: 'REPOSITORY', value: repository },
    { key: 'PACKAGES', value: PACKAGE },
  ];
  return registerRecipe(api, store, bucket, { name: 'demo', archive, values });
}

/** How far a job is, in words that change when there is something to tell. */
function describe({ status, progress }: JobView): string {
  return progress ? `${status}: ${progress.stage}` : status;
}

/** Tells how a job goes until it has ended. */
async function follow({ api, step }: BuildContext, id: string): Promise<JobView> {
  for (let last = ''; ; await new Promise((resolve) => setTimeout(resolve, 100))) {
    const job = await api.job(id);
    const text = describe(job);
    if (text !== last) step(text);
    last = text;
    if (job.status === 'success') return job;
    if (job.status === 'error') throw new Error(`the create job failed: ${job.status_reason ?? 'no reason given'}`);
  }
}

interface BuiltImage {
  job_id: string;
  recipe: { id: string; name: string };
}

async function checkImage(context: BuildContext, job: JobView, recipeId: string): Promise<void> {
  const image = await context.api.request<BuiltImage>('GET', `/images/${job.resultant_image_id}`);
  const { types, cat } = await downloadImage(context, job.resultant_image_id!);
  expectAll(context, [
    ['its record names the recipe and the job', image.job_id === job.id && image.recipe.id === recipeId],
    ['the list of its packages is kept', types.includes('packages')],
    ['the package of the template is installed', (await cat('etc/motd')).trim() === 'from a package'],
    ['config.sh ran', (await cat('etc/config-sh')).includes('config.sh')],
    ['images.sh ran', (await cat('etc/images-sh')).includes('images.sh')],
    [
      'the CA certificate is in place',
      (await cat('etc/cray/ca/certificate_authority.crt')).includes('BEGIN CERTIFICATE'),
    ],
  ]);
}

/** An administrator's way from a recipe to an image, once. Returns the id of the recipe. */
export async function buildOnce(context: BuildContext): Promise<string> {
  const { api, publicKeyId, step } = context;
  const recipeId = await provideRecipe(context);
  step(`recipe ${recipeId} registered`);
  const { id } = await api.request<JobView>('POST', '/jobs', {
    job_type: 'create',
    artifact_id: recipeId,
    public_key_id: publicKeyId,
    image_root_archive_name: 'demo-built',
  });
  step(`create job ${id} started`);
  const done = await follow(context, id);
  step(`image ${done.resultant_image_id}`);
  await checkImage(context, done, recipeId);
  await deleteJob(context, id);
  return recipeId;
}
