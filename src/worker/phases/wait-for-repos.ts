import type { CreateSpec } from '../../protocol/job-spec.js';
import { JobFailure } from '../job-failure.js';
import { readDescription, type Repository, tellable } from '../recipe/recipe-description.js';
import { probe } from '../repository-probe.js';
import type { PhaseContext } from './phase.js';

/** Milliseconds between two questions: at first, and at most. */
const FIRST_PAUSE = 500;
const LONGEST_PAUSE = 10_000;

/** A repository that is not there yet, and what it answered. */
interface Missing {
  repository: Repository;
  answer: string;
}

/** Waits until all repositories of the recipe that are reached by http or https are there. */
export async function waitForRepos(context: PhaseContext<CreateSpec>): Promise<void> {
  const { job, directory, ims, log } = context;
  await ims.report({ status: 'waiting_for_repos' });
  const { repositories } = await readDescription(directory.recipe);
  if (!repositories.length) return log('the recipe has no repositories that are reached by http or https');
  const deadline = Date.now() + job.repositorySeconds * 1000;
  let told = '';
  for (let pause = FIRST_PAUSE; ; pause = Math.min(2 * pause, LONGEST_PAUSE)) {
    const missing = await askAll(context, repositories, deadline);
    if (!missing.length) return log('all repositories are there', { count: repositories.length });
    const text = describeAll(missing);
    if (text !== told) log('waits for repositories', { missing: text });
    if (Date.now() + pause > deadline) throw tooLate(text, job.repositorySeconds);
    await ims.report({
      progress: { stage: 'repositories', done: repositories.length - missing.length, total: repositories.length },
      status_reason: `waits for repositories: ${text}`,
      status_code: 'repositories',
    });
    told = text;
    await new Promise((resolve) => setTimeout(resolve, pause));
  }
}

/** Asks all at once; those that do not answer until the deadline have not answered. */
async function askAll(
  { job }: PhaseContext<CreateSpec>,
  repositories: readonly Repository[],
  deadline: number,
): Promise<Missing[]> {
  const abort = AbortSignal.timeout(Math.max(0, deadline - Date.now()));
  const answers = await Promise.all(
    repositories.map(async (repository) => ({
      repository,
      answer: await probe(repository.probe, job.ca_certificate, abort),
    })),
  );
  return answers.filter((one): one is Missing => one.answer !== null);
}

/** Repositories that a reason names at most. */
const NAMED = 5;

function describeAll(missing: readonly Missing[]): string {
  const named = missing
    .slice(0, NAMED)
    .map(({ repository: { name, probe: url }, answer }) => `${name} (${tellable(url)}) ${answer}`);
  return [...named, ...(missing.length > NAMED ? [`and ${missing.length - NAMED} more`] : [])].join('; ');
}

function tooLate(text: string, seconds: number): JobFailure {
  return new JobFailure(
    `repositories of the recipe did not come up within ${seconds} s (JOB_REPOSITORY_SECONDS): ${text}. Correct their addresses in the recipe, or start them, and start the job again`,
  );
}
