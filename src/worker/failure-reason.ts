import type { PhaseName } from '../protocol/job-spec.js';
import type { StatusCode } from '../protocol/status-codes.js';
import { ArtifactStoreFailure, NoSuchArtifact } from '../artifacts/artifact-store.js';
import { CommandFailed, CommandMissing } from './commands.js';
import type { Place } from './config.js';
import { diskFull } from './disk.js';
import { ImsRefused } from './ims-client.js';
import { JobFailure } from './job-failure.js';

/** Whether an error, or one that caused it, says that the disk is full. */
function isDiskFull(error: unknown): boolean {
  if (!(error instanceof Error)) return false;
  const isFull = ['ENOSPC', 'EDQUOT'].includes((error as NodeJS.ErrnoException).code ?? '');
  const saysSo = error instanceof CommandFailed && /No space left|Disk quota exceeded/i.test(error.stderr);
  return isFull || saysSo || isDiskFull(error.cause);
}

/** What the job record says of an error that ended a phase: a sentence for users, without urls, keys or paths of the machine. */
export function failureReason(error: unknown, phase: string, place: Place): string {
  if (error instanceof JobFailure) return error.message;
  if (isDiskFull(error)) return diskFull(place);
  if (error instanceof ArtifactStoreFailure || error instanceof NoSuchArtifact || error instanceof CommandMissing)
    return error.message;
  if (error instanceof ImsRefused) return `the server refused what the job asked for: ${error.message}`;
  if (error instanceof CommandFailed)
    return `the phase ${phase} failed, since ${error.command} did; the log of the job says why`;
  return `the phase ${phase} failed unexpectedly; the log of the job says why`;
}

/** What it is called that a phase failed, where nothing more is known. */
const CODE_OF_PHASE: Readonly<Record<PhaseName, StatusCode>> = {
  'fetch-image': 'source',
  'fetch-recipe': 'source',
  'wait-for-repos': 'repositories',
  'build-ca-rpm': 'build',
  'build-image': 'build',
  shell: 'shell_failed',
  finish: 'packaging',
};

/** What the job record says to programs of an error that ended a phase. */
export function failureCode(error: unknown, phase: PhaseName): StatusCode {
  if (error instanceof JobFailure && error.code) return error.code;
  if (isDiskFull(error)) return 'disk_full';
  return error instanceof ArtifactStoreFailure ? 'artifact_store' : CODE_OF_PHASE[phase];
}
