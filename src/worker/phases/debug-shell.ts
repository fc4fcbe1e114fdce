import type { CreateSpec, ShellSpec } from '../../protocol/job-spec.js';
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
    // Not a copy: the rest of the context is made only where it is used, and a shell in a pod has no store.
    const withShell = Object.create(context, { job: { value: { ...job, shell } } }) as PhaseContext<
      CreateSpec & { shell: ShellSpec }
    >;
    await openShell(withShell, ImageRoot.reopen('tree', directory, commands), failure);
  } catch (error) {
    if (error instanceof JobIsOver) throw error;
    const why = failureReason(error, 'shell', context.place);
    throw new JobFailure(`${failure}. No shell could be kept open in what is left: ${why}`, {
      cause: error,
      code: 'build',
    });
  }
}
