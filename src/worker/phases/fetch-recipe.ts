import { rm } from 'node:fs/promises';
import { dirname, join, relative } from 'node:path';
import type { CreateSpec } from '../../protocol/job-spec.js';
import { BadArchive } from '../archive/bad-archive.js';
import { fetchSource } from '../fetch-source.js';
import { JobFailure } from '../job-failure.js';
import { provideKiwi } from '../kiwi/kiwi-environment.js';
import { refuseMissingManager } from '../recipe/package-managers.js';
import { readDescription } from '../recipe/recipe-description.js';
import { renderTemplates } from '../recipe/render-templates.js';
import { unpackArchive } from '../recipe/unpack-archive.js';
import type { PhaseContext } from './phase.js';

/** A directory that every machine has, and that nothing of this phase uses. */
const OPEN_PLACE = '/mnt';
const ARCHIVE = { what: 'the archive of the recipe', witness: 'the artifact store' };

/** Brings the recipe to the job directory: verified, unpacked, its templates filled in. */
export async function fetchRecipe(context: PhaseContext<CreateSpec>): Promise<void> {
  const { job, directory, commands, ims, log, kiwiDirectory } = context;
  await ims.report({ status: 'fetching_recipe' });
  await fetchSource(context, ARCHIVE, directory.archive);
  await unpack(context);
  // The archive may be a link into the store: only this name of it goes.
  await rm(directory.archive);
  const python = await openToAll(context, await provideKiwi(kiwiDirectory, commands, log));
  await renderTemplates(directory.recipe, job.recipe.template_dictionary, python, commands, log);
  const { packageManager } = await readDescription(directory.recipe);
  await refuseMissingManager(packageManager, job.arch, commands);
}

/**
 * On a machine the environment may stand where only root gets to, as below /root: it is shown at another place, in the mount namespace of this
 * process. An image of a container has it where anybody gets to.
 * @returns the path of the interpreter there
 */
async function openToAll({ place, commands }: PhaseContext, python: string): Promise<string> {
  if (place === 'pod') return python;
  const home = dirname(dirname(python));
  await commands.run('mount', ['--bind', '--', home, OPEN_PLACE]);
  return join(OPEN_PLACE, relative(home, python));
}

async function unpack({ job, directory, commands, disk, ims, log }: PhaseContext<CreateSpec>): Promise<void> {
  await disk.expectFree(0);
  await ims.reportProgress({ stage: 'unpack', done: null, total: null });
  try {
    const { entries, bytes } = await unpackArchive(directory.archive, directory.recipe, job.unpackLimits, commands);
    log('unpacked the recipe', { entries, bytes });
  } catch (error) {
    throw error instanceof BadArchive
      ? new JobFailure(`the archive of the recipe ${error.message}`, { cause: error })
      : error;
  }
}
