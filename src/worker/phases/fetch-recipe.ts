import { rm } from 'node:fs/promises';
import type { CreateSpec } from '../../protocol/job-spec.js';
import { BadArchive } from '../archive/bad-archive.js';
import { CommandMissing } from '../commands.js';
import { fetchSource } from '../fetch-source.js';
import { JobFailure } from '../job-failure.js';
import { provideKiwi } from '../kiwi/kiwi-environment.js';
import { readDescription } from '../recipe/recipe-description.js';
import { renderTemplates } from '../recipe/render-templates.js';
import { unpackArchive } from '../recipe/unpack-archive.js';
import type { PhaseContext } from './phase.js';

const ARCHIVE = { what: 'the archive of the recipe', witness: 'the artifact store' };

/** Brings the recipe to the job directory: verified, unpacked, its templates filled in. */
export async function fetchRecipe(context: PhaseContext<CreateSpec>): Promise<void> {
  const { job, directory, commands, ims, log, kiwiDirectory } = context;
  await ims.report({ status: 'fetching_recipe' });
  await fetchSource(context, ARCHIVE, directory.archive);
  await unpack(context);
  // The archive may be a link into the store: only this name of it goes.
  await rm(directory.archive);
  const python = await provideKiwi(kiwiDirectory, commands, log);
  await renderTemplates(directory.recipe, job.recipe.template_dictionary, python, commands, log);
  await refuseMissingManager(context);
}

/** Commands by which KIWI-NG installs into a new root, and Debian's packages of them. */
const MANAGERS: Readonly<Record<string, { command: string; package: string }>> = {
  zypper: { command: 'zypper', package: 'zypper' },
  dnf4: { command: 'dnf-3', package: 'dnf' },
  apt: { command: 'mmdebstrap', package: 'mmdebstrap' },
};

/** Said at once, not after all repositories have answered. Other package managers are for KIWI-NG to judge. */
async function refuseMissingManager({ directory, commands }: PhaseContext): Promise<void> {
  const { packageManager } = await readDescription(directory.recipe);
  const needed = packageManager === null ? undefined : MANAGERS[packageManager];
  if (!needed) return;
  await commands.run(needed.command, ['--version']).catch((error: unknown) => {
    if (!(error instanceof CommandMissing)) throw error;
    throw new JobFailure(
      `the recipe installs by ${packageManager}, which is missing on the machine that runs the job: apt-get install -y --no-install-recommends ${needed.package}`,
      { cause: error },
    );
  });
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
