import { readFile } from 'node:fs/promises';
import type { BuildOutcome } from '../protocol/signals.js';
import { writeDurably } from './durable-file.js';
import type { JobDirectory } from './job-directory.js';

/** Hands on how the build ended. */
export async function writeBuildOutcome({ buildOutcome }: JobDirectory, outcome: BuildOutcome): Promise<void> {
  await writeDurably(buildOutcome, outcome);
}

/** How the build ended; the phase that builds is over. */
export async function readBuildOutcome({ buildOutcome }: JobDirectory): Promise<BuildOutcome> {
  return JSON.parse(await readFile(buildOutcome, 'utf8')) as BuildOutcome;
}
