import { access, readFile } from 'node:fs/promises';
import type { CreateSpec, CustomizeSpec } from '../../protocol/job-spec.js';
import { type ShellOutcome, signalDirectory } from '../../protocol/signals.js';
import { type BootFiles, openBootFiles } from '../boot-files.js';
import { readBuildOutcome } from '../build-outcome.js';
import { placeCaCertificate } from '../ca-certificate.js';
import { ImageRoot, type MountedRoot, type RootKind } from '../image-root.js';
import { isMissing } from '../in-root.js';
import { JobFailure } from '../job-failure.js';
import { type ImageContents, publishImage } from '../publish-image.js';
import { restoreResolvConf } from '../resolv-conf.js';
import { removeSignalFiles } from '../signal-files.js';
import { startPacking } from '../squashfs/pack.js';
import { Teardown } from '../teardown.js';
import type { PhaseContext } from './phase.js';

/** Milliseconds between two looks for the outcome of the shell. */
const INTERVAL = 100;

/** Waits for the shell, and makes an image of what it left. */
export async function finish(context: PhaseContext<CustomizeSpec>): Promise<void> {
  const { job, directory } = context;
  const outcome = await outcomeOf(directory.outcome);
  refuseOthers(outcome);
  const contents = { expectedSize: job.source.size, packages: null };
  await makeImage(context, outcome.root, contents, (root) => cleanRoot(context, root));
}

/** Makes an image of what was built. Where the build failed, waits until nobody looks at what is left any more. */
export async function finishBuild(context: PhaseContext<CreateSpec>): Promise<void> {
  const { directory } = context;
  const { failure } = await readBuildOutcome(directory);
  if (failure !== null) {
    await outcomeOf(directory.outcome);
    throw new JobFailure(failure, { code: 'build' });
  }
  await makeImage(context, 'tree', await contentsOfBuild(context), (root) =>
    placeCaCertificate(root.path, context.job.ca_certificate),
  );
}

/** How large a built image becomes at most, and what is kept beside it. */
async function contentsOfBuild({ directory, commands }: PhaseContext): Promise<ImageContents> {
  const { stdout } = await commands.run('du', ['--summarize', '--block-size=1', directory.tree]);
  const packages = await access(directory.packages).then(
    () => directory.packages,
    () => null,
  );
  return { expectedSize: Number.parseInt(stdout, 10), packages };
}

/** Packs an image root, and registers the image. */
async function makeImage(
  context: PhaseContext,
  kind: RootKind,
  contents: ImageContents,
  prepare: (root: MountedRoot) => Promise<void>,
): Promise<void> {
  const { job, directory, commands, ims, log } = context;
  await ims.report({ status: 'packaging_artifacts' });
  const teardown = new Teardown();
  try {
    const root = await ImageRoot.reopen(kind, directory, commands).mountPlain();
    teardown.add(() => root.unmount());
    await prepare(root);
    const boot = await openBootFiles(root.path, job);
    teardown.add(() => boot.close());
    const { image, packing } = await pack(context, root, boot, contents);
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
  if (signal === 'failed')
    throw new JobFailure('the user ended the shell by touching the file failed', { code: 'shell_failed' });
  if (signal === 'expired')
    throw new JobFailure(
      'nobody touched the file complete or failed before the deadline of the shell: start the job again, and move its shell_deadline by PATCH or raise JOB_SHELL_SECONDS where that is too short',
      { code: 'shell_deadline' },
    );
  if (signal === 'idle')
    throw new JobFailure(
      'nobody was logged in to the shell for as long as an unused shell stays open: start the job again, and change its shell_idle_seconds by PATCH or raise JOB_SHELL_IDLE_SECONDS where that is too short',
      { code: 'shell_idle' },
    );
}

/** Takes out of the image root what we put there for the shell, and puts in what every image gets. */
async function cleanRoot({ job, directory, commands }: PhaseContext<CustomizeSpec>, root: MountedRoot): Promise<void> {
  if (job.shell.jail) await removeSignalFiles(root.path, signalDirectory(true));
  await restoreResolvConf(root.path, root.pristine ?? directory.pristine, commands);
  await placeCaCertificate(root.path, job.ca_certificate);
}

/** Packs while it uploads. The first failure of either ends the other. */
async function pack(context: PhaseContext, root: MountedRoot, boot: BootFiles, contents: ImageContents) {
  const abort = new AbortController();
  const packing = startPacking(context, root, abort.signal);
  try {
    const image = await publishImage(context, packing, boot, contents);
    return { image, packing: await packing.done };
  } finally {
    abort.abort();
    await packing.done.catch(() => {});
  }
}
