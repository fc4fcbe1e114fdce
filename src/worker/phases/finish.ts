import { readFile } from 'node:fs/promises';
import { type ShellOutcome, signalDirectory } from '../../protocol/signals.js';
import { type BootFiles, openBootFiles } from '../boot-files.js';
import { placeCaCertificate } from '../ca-certificate.js';
import { ImageRoot, type MountedRoot } from '../image-root.js';
import { isMissing } from '../in-root.js';
import { JobFailure } from '../job-failure.js';
import { publishImage } from '../publish-image.js';
import { restoreResolvConf } from '../resolv-conf.js';
import { removeSignalFiles } from '../signal-files.js';
import { packSquashfs } from '../squashfs/pack.js';
import { Teardown } from '../teardown.js';
import type { PhaseContext } from './phase.js';

/** Milliseconds between two looks for the outcome of the shell. */
const INTERVAL = 100;

/** Waits for the shell, and makes an image of what it left. */
export async function finish(context: PhaseContext): Promise<void> {
  const { job, directory, commands, ims, log } = context;
  const outcome = await outcomeOf(directory.outcome);
  refuseOthers(outcome);
  await ims.report({ status: 'packaging_artifacts' });
  const teardown = new Teardown();
  try {
    const root = await ImageRoot.reopen(outcome.root, directory, commands).mountPlain();
    teardown.add(() => root.unmount());
    await cleanRoot(context, root);
    const boot = await openBootFiles(root.path, job);
    teardown.add(() => boot.close());
    const { image, packing } = await pack(context, root, boot);
    log('registered', { image_id: image.id });
    await ims.report({ status: 'success', resultant_image_id: image.id, packing });
  } finally {
    await teardown.run();
  }
}

async function outcomeOf(file: string): Promise<ShellOutcome> {
  for (;;) {
    const text = await readFile(file, 'utf8').catch((error: unknown) => {
      if (!isMissing(error)) throw error;
      return null;
    });
    if (text !== null) return JSON.parse(text) as ShellOutcome;
    await new Promise((resolve) => setTimeout(resolve, INTERVAL));
  }
}

function refuseOthers({ signal }: ShellOutcome): void {
  if (signal === 'failed') throw new JobFailure('the user ended the shell by touching the file failed');
  if (signal === 'expired')
    throw new JobFailure(
      'nobody touched the file complete or failed before the deadline of the shell: start the job again, and move its shell_deadline by PATCH or raise JOB_SHELL_SECONDS where that is too short',
    );
  if (signal === 'idle')
    throw new JobFailure(
      'nobody was logged in to the shell for as long as an unused shell stays open: start the job again, and change its shell_idle_seconds by PATCH or raise JOB_SHELL_IDLE_SECONDS where that is too short',
    );
}

/** Takes out of the image root what we put there for the shell, and puts in what every image gets. */
async function cleanRoot({ job, directory, commands }: PhaseContext, root: MountedRoot): Promise<void> {
  if (job.shell.jail) await removeSignalFiles(root.path, signalDirectory(true));
  await restoreResolvConf(root.path, root.pristine ?? directory.pristine, commands);
  await placeCaCertificate(root.path, job.ca_certificate);
}

/** Packs while it uploads. The first failure of either ends the other. */
async function pack(context: PhaseContext, root: MountedRoot, boot: BootFiles) {
  const abort = new AbortController();
  const packed = packSquashfs(context, root, abort.signal);
  // It may fail before anybody waits for it.
  packed.catch(() => {});
  try {
    const image = await publishImage(context, packed, boot);
    return { image, packing: await packed };
  } finally {
    abort.abort();
    await packed.catch(() => {});
  }
}
