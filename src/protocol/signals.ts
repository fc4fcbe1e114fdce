/** How the user ended the shell. */
export const SHELL_SIGNALS = ['complete', 'failed'] as const;
export type ShellSignal = (typeof SHELL_SIGNALS)[number];

/** Where the user stands and what he touches there. */
export const IMAGE_ROOT_IN_SHELL = '/mnt/image/image-root';

/** Directory of the signal files: in the environment without a jail, inside of the image root with one. */
export function signalDirectory(jail: boolean): string {
  return jail ? '/tmp' : '/mnt/image';
}

/**
 * What the phase `shell` hands to the phase `finish`, as the file `outcome.json` in the directory `hand-over` of the job. It is written, by rename, only
 * when the sandbox is dead and nobody can write to the image root any more.
 */
export interface ShellOutcome {
  /** `expired` where nobody ended the shell in time, `idle` where nobody was in it for too long. */
  signal: ShellSignal | 'expired' | 'idle';
  /** How the image root is kept: as the changes over the source (`overlay`), or as a whole tree (`tree`). */
  root: 'overlay' | 'tree';
}

/** What the phase `build-image` hands to the phases after it, as the file `build.json` in the job directory. */
export interface BuildOutcome {
  /** Why the build failed, where a shell is to be opened in what it left; null where it worked. */
  failure: string | null;
}

/** Name of the outcome of the build in the job directory. */
export const BUILD_FILE = 'build.json';
/** Name of the outcome file in the job directory. */
export const OUTCOME_FILE = 'outcome.json';
/** Name of the job specification in the job directory. */
export const SPEC_FILE = 'job.json';
