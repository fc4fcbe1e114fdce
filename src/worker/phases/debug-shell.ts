import type { CreateSpec } from '../../protocol/job-spec.js';
import { readBuildOutcome } from '../build-outcome.js';
import { failureReason } from '../failure-reason.js';
import { ImageRoot } from '../image-root.js';
import { JobIsOver } from '../ims-client.js';
import { JobFailure } from '../job-failure.js';
import type { PhaseContext } from './phase.js';
import { openShell } from './shell.js';

/** Opens what a failed build left to the user. Where the build worked there is nothing to do. */
export async function debugShell(context: PhaseContext<CreateSpec>): Promise<void> {
  const { job, directory, commands, log } = context;
  const { failure } = await readBuildOutcome(directory);
  const { shell } = job;
  if (failure === null || !shell) return log('the build worked: no shell is needed');
  try {
    await openShell({ ...context, job: { ...job, shell } }, ImageRoot.reopen('tree', directory, commands), failure);
  } catch (error) {
    if (error instanceof JobIsOver) throw error;
    const why = failureReason(error, 'shell');
    throw new JobFailure(`${failure}. No shell could be kept open in what is left: ${why}`, { cause: error });
  }
}
