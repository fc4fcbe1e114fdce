import { mkdir } from 'node:fs/promises';
import type { ArtifactStore } from '../artifacts/artifact-store.js';
import type { CreatePhase, CreateSpec, CustomizePhase, CustomizeSpec, PhaseName } from '../protocol/job-spec.js';
import { SystemCommands } from './commands.js';
import { type Place, readWorkerConfig, type WorkerConfig } from './config.js';
import { Disk } from './disk.js';
import { providePrograms } from './emulation.js';
import { failureCode, failureReason } from './failure-reason.js';
import { HttpImsClient, type ImsClient, ImsUnreachable, JobIsOver } from './ims-client.js';
import { JobDirectory } from './job-directory.js';
import { JobFailure } from './job-failure.js';
import { lineLog } from './log.js';
import { buildCaRpm } from './phases/build-ca-rpm.js';
import { buildImage } from './phases/build-image.js';
import { debugShell } from './phases/debug-shell.js';
import { fetchImage } from './phases/fetch-image.js';
import { fetchRecipe } from './phases/fetch-recipe.js';
import { finish, finishBuild } from './phases/finish.js';
import type { CreatePhaseRun, CustomizePhaseRun, PhaseContext } from './phases/phase.js';
import { shell } from './phases/shell.js';
import { waitForRepos } from './phases/wait-for-repos.js';

const CUSTOMIZE: Record<CustomizePhase, CustomizePhaseRun> = { 'fetch-image': fetchImage, shell, finish };
const CREATE: Record<CreatePhase, CreatePhaseRun> = {
  'fetch-recipe': fetchRecipe,
  'wait-for-repos': waitForRepos,
  'build-ca-rpm': buildCaRpm,
  'build-image': buildImage,
  shell: debugShell,
  finish: finishBuild,
};

const log = lineLog((line) => process.stdout.write(line));

/** Runs what a phase is for jobs of this type. The context is handed on as it is: what a launcher did not give is missed only where it is used. */
async function runPhase(phase: PhaseName, context: PhaseContext): Promise<void> {
  return context.job.job_type === 'create'
    ? CREATE[phase as CreatePhase](context as PhaseContext<CreateSpec>)
    : CUSTOMIZE[phase as CustomizePhase](context as PhaseContext<CustomizeSpec>);
}

/** Runs a phase; whatever ends it is said to the server. Returns the exit code. */
async function run({ phase, job, place, store, diskReserve, ...config }: WorkerConfig): Promise<number> {
  const ims = new HttpImsClient({ serverUrl: job.server_url, jobId: job.job_id, token: job.token });
  const directory = new JobDirectory(config.directory);
  await mkdir(directory.handOver, { recursive: true });
  // Paths in mount options are relative to this one: there is no way to write every path into them.
  process.chdir(directory.path);
  log('begins', { phase, job_id: job.job_id });
  const commands = new SystemCommands();
  let opened: Promise<ArtifactStore> | null = null;
  try {
    await providePrograms(phase, job, { emulation: config.emulation, directory: directory.handOver, commands });
    await runPhase(phase, {
      job,
      place,
      directory,
      commands,
      ims,
      openStore: () => (opened ??= openStore(phase, store)),
      disk: new Disk(directory.handOver, diskReserve, place),
      log,
      get kiwiDirectory() {
        if (!config.kiwiDirectory) throw new Error(`the phase ${phase} was given no place for KIWI-NG`);
        return config.kiwiDirectory;
      },
      signingKeysDirectory: config.signingKeysDirectory,
    });
    log('done', { phase });
    return 0;
  } catch (error) {
    if (!(error instanceof JobIsOver)) return fail(error, phase, place, ims);
    log('the job ended meanwhile', { phase });
    return 0;
  }
}

async function openStore(phase: PhaseName, store: WorkerConfig['store']): Promise<ArtifactStore> {
  if (!store) throw new Error(`the phase ${phase} was given no artifact store`);
  const { S3ArtifactStore } = await import('../artifacts/s3-artifact-store.js');
  return new S3ArtifactStore(store);
}

/** Says why a phase failed: to the log, and to the server. */
async function fail(error: unknown, phase: PhaseName, place: Place, ims: ImsClient): Promise<number> {
  const [status_reason, status_code] = [failureReason(error, phase, place), failureCode(error, phase)];
  log('failed', { phase, reason: status_reason });
  if (!(error instanceof JobFailure)) process.stdout.write(`${error instanceof Error ? error.stack : String(error)}\n`);
  if (error instanceof ImsUnreachable) return 1;
  await ims.report({ status: 'error', status_reason, status_code }).catch((unsaid: unknown) => {
    if (!(unsaid instanceof JobIsOver)) log('the server was not told', { error: String(unsaid) });
  });
  return 1;
}

// What still runs of a phase that has ended (a timer, a socket) must not keep it: its end is what the others wait for.
process.exit(await run(readWorkerConfig(process.argv.slice(2))));
