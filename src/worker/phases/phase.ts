import type { ArtifactStore } from '../../artifacts/artifact-store.js';
import type { CreateSpec, CustomizeSpec, JobSpec } from '../../protocol/job-spec.js';
import type { Commands } from '../commands.js';
import type { Place } from '../config.js';
import type { Disk } from '../disk.js';
import type { ImsClient } from '../ims-client.js';
import type { JobDirectory } from '../job-directory.js';
import type { Log } from '../log.js';

/** All that a phase works with. */
export interface PhaseContext<Job extends JobSpec = JobSpec> {
  job: Job;
  place: Place;
  directory: JobDirectory;
  commands: Commands;
  ims: ImsClient;
  /** The artifact store. It is loaded when it is first asked for: that takes longer than most phases need to begin. */
  openStore(): Promise<ArtifactStore>;
  disk: Disk;
  log: Log;
  /** Where the Python environment with KIWI-NG is kept. */
  kiwiDirectory: string;
  /** Public keys by which packages are checked; null for none. */
  signingKeysDirectory: string | null;
}

/**
 * A step of a job that runs as a process of its own: a container of a pod, or a child of the server on one machine. Phases know of each
 * other only what they find in the job directory.
 *
 * Rejects with JobFailure where the user can change what went wrong, with JobIsOver where the job ended meanwhile, with anything else
 * where we are at fault. It reports progress itself, but never its own failure: that is done in one place for all phases.
 */
export type Phase<Job extends JobSpec = JobSpec> = (context: PhaseContext<Job>) => Promise<void>;
export type CustomizePhaseRun = Phase<CustomizeSpec>;
export type CreatePhaseRun = Phase<CreateSpec>;
