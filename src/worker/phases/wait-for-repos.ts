import type { SecureContext } from 'node:tls';
import type { CreateSpec } from '../../protocol/job-spec.js';
import { JobFailure } from '../job-failure.js';
import { CA_BUNDLES } from '../kiwi/build-place.js';
import { readDescription, type Repository, tellable } from '../recipe/recipe-description.js';
import { probe, readTrust } from '../repository-probe.js';
import { clip } from '../tellable-reason.js';
import type { PhaseContext } from './phase.js';

/** Milliseconds between two questions: at first, and at most. */
const FIRST_PAUSE = 500;
const LONGEST_PAUSE = 10_000;
/** Milliseconds that the last question gets, which is asked at the deadline. */
const LAST_CHANCE = 5000;
/** Repositories that are asked at once. */
const AT_ONCE = 16;

/** A repository that is not there yet, and what it answered. */
interface Missing {
  repository: Repository;
  answer: string;
}

/** Waits until all repositories that the build uses, and that are reached by http or https, are there. */
export async function waitForRepos(context: PhaseContext<CreateSpec>): Promise<void> {
  const { job, directory, ims, log } = context;
  await ims.report({ status: 'waiting_for_repos' });
  const repositories = (await readDescription(directory.recipe)).repositories.filter(
    ({ architectures }) => !architectures.length || architectures.includes(job.arch),
  );
  if (!repositories.length) return log('the recipe has no repositories that are reached by http or https');
  const trust = await readTrust(CA_BUNDLES, job.ca_certificate);
  const deadline = Date.now() + job.repositorySeconds * 1000;
  let told = '';
  for (let pause = FIRST_PAUSE; ; pause = Math.min(2 * pause, LONGEST_PAUSE)) {
    const asked = Date.now();
    const missing = await askAll(repositories, trust, Math.max(deadline - asked, LAST_CHANCE));
    if (!missing.length) return log('all repositories are there', { count: repositories.length });
    const text = describeAll(missing);
    if (text !== told) log('waits for repositories', { missing: text });
    if (asked >= deadline) throw tooLate(text, job.repositorySeconds);
    await ims.report({
      progress: { stage: 'repositories', done: repositories.length - missing.length, total: repositories.length },
      status_reason: `waits for repositories: ${text}`,
      status_code: 'repositories',
    });
    told = text;
    await new Promise((resolve) => setTimeout(resolve, Math.min(pause, Math.max(0, deadline - Date.now()))));
  }
}

/**
 * Asks all, some at once.
 * @param milliseconds after which those that have not answered did not answer in time
 */
async function askAll(
  repositories: readonly Repository[],
  trust: SecureContext,
  milliseconds: number,
): Promise<Missing[]> {
  const abort = AbortSignal.timeout(milliseconds);
  const answers: (string | null)[] = [];
  const queue = repositories.entries();
  const askNext = async () => {
    for (const [index, repository] of queue) answers[index] = await probe(repository.probe, trust, abort);
  };
  await Promise.all(Array.from({ length: AT_ONCE }, askNext));
  return repositories.flatMap((repository, index) => {
    const answer = answers[index]!;
    return answer === null ? [] : [{ repository, answer }];
  });
}

/** Repositories that a reason names at most, and characters of what recipes say of each. */
const NAMED = 5;
const WORDS = 200;

function describeAll(missing: readonly Missing[]): string {
  const named = missing
    .slice(0, NAMED)
    .map(
      ({ repository: { name, probe: url }, answer }) =>
        `${clip(name, WORDS)} (${clip(tellable(url), WORDS)}) ${answer}`,
    );
  return [...named, ...(missing.length > NAMED ? [`and ${missing.length - NAMED} more`] : [])].join('; ');
}

function tooLate(text: string, seconds: number): JobFailure {
  return new JobFailure(
    `repositories of the recipe did not come up within ${seconds} s (JOB_REPOSITORY_SECONDS): ${text}. Correct their addresses in the recipe, or start them, and start the job again`,
  );
}
