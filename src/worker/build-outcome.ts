import { readFile } from 'node:fs/promises';
import type { BuildOutcome } from '../protocol/signals.js';
import { writeDurably } from './durable-file.js';
import type { JobDirectory } from './job-directory.js';
import { tellableReason } from './tellable-reason.js';

/** Hands on how the build ended. */
export async function writeBuildOutcome({ buildOutcome }: JobDirectory, { failure }: BuildOutcome): Promise<void> {
  const outcome: BuildOutcome = { failure: failure === null ? null : tellableReason(failure) };
  await writeDurably(buildOutcome, outcome);
}

/** How the build ended; the phase that builds is over. */
export async function readBuildOutcome({ buildOutcome }: JobDirectory): Promise<BuildOutcome> {
  return JSON.parse(await readFile(buildOutcome, 'utf8')) as BuildOutcome;
}
