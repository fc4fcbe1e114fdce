import type { HostKey } from '../protocol/job-report.js';
import type { JobSpec, ShellSpec } from '../protocol/job-spec.js';
import type { CommandEnd, Commands } from './commands.js';
import type { ImageRoot } from './image-root.js';
import { JobFailure } from './job-failure.js';
import { findIn } from './linux.js';
import type { PhaseContext } from './phases/phase.js';
import { openSshRelease, sshdConfig, type SshdSettings } from './sandbox/sshd-config.js';
import type { Teardown } from './teardown.js';

/** A job that has a shell. */
export type JobWithShell = JobSpec & { shell: ShellSpec };
/** What the phase of a shell works with. */
export type ShellContext = PhaseContext<JobWithShell>;

/** An ssh environment that a user can enter. */
export interface OpenShell {
  hostKey: HostKey;
  /** Where sshd can be reached from here. */
  listenAddress: string;
  port: number;
  /** Path here of what the user sees as `/`. */
  seen: string;
  /** Resolves when nobody can enter it any more. */
  readonly ended: Promise<CommandEnd>;
  /** Whether anybody is in it, or has left something running. */
  isUsed(): boolean;
}

/** What the user of a shell works in: a sandbox that is made for it, or the container that the phase runs in. */
export interface ShellEnvironment {
  /** The resolv.conf by which names resolve in it. */
  resolvConf(): Promise<string>;
  /** Opens it with the image root in its place. How it is ended, with all that runs in it, is left in `teardown`. */
  open(context: ShellContext, root: ImageRoot, teardown: Teardown): Promise<OpenShell>;
}

/** The configuration of a job's sshd. */
export async function sshdConfigOf(
  job: JobWithShell,
  addressFamily: SshdSettings['addressFamily'],
  commands: Commands,
): Promise<string> {
  const version = await commands.run('ssh', ['-V']);
  return sshdConfig({
    jobId: job.job_id,
    arch: job.arch,
    dkms: job.require_dkms,
    jail: job.shell.jail,
    addressFamily,
    release: openSshRelease(version.stderr),
  });
}

/**
 * The shell of root: in a jail one that the image has.
 * @param root the image root
 */
export function loginShellOf({ shell }: JobWithShell, root: string): string {
  if (!shell.jail) return '/bin/bash';
  for (const program of ['/bin/bash', '/bin/sh']) {
    const found = findIn(root, program, 'any');
    found?.close();
    if (found) return program;
  }
  throw new JobFailure('the image holds neither /bin/bash nor /bin/sh: start the job without a jail');
}
