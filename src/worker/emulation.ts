import { access, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Arch } from '../protocol/arch.js';
import type { JobSpec, PhaseName } from '../protocol/job-spec.js';
import { CommandFailed, CommandMissing, type Commands } from './commands.js';
import { ELF_MACHINE, elfProgram } from './elf-program.js';
import { JobFailure } from './job-failure.js';

/** Where the kernel tells which programs it hands to interpreters, and takes further ones (Documentation/admin-guide/binfmt-misc.rst). */
const BINFMT = '/proc/sys/fs/binfmt_misc';
/** Where Debian's qemu-user-static says how its emulators are to be registered: opened at once, so that they work in every root. */
const DESCRIPTIONS = '/usr/lib/binfmt.d';
/** The machine's name of each architecture, as `process.arch` tells it. */
const MACHINE_OF_ARCH: Record<Arch, string> = { x86_64: 'x64', aarch64: 'arm64' };
/** Phases that run programs of the image. */
const WITH_PROGRAMS: ReadonlySet<PhaseName> = new Set(['build-image', 'shell']);

/** What the smallest programs end with. */
const EXIT_CODE = 42;
/** Code that exits, and does nothing else. */
const EXIT: Record<Arch, Buffer> = {
  // mov edi, 42; mov eax, 60; syscall
  x86_64: Buffer.from('bf2a000000b83c0000000f05', 'hex'),
  // mov x0, #42; mov x8, #93; svc #0
  aarch64: Buffer.from('400580d2a80b80d2010000d4', 'hex'),
};

export interface ProgramOptions {
  /** Whether an emulator may be registered. */
  emulation: boolean;
  /** A directory for a file that is executed. */
  directory: string;
  commands: Commands;
}

/**
 * Sees to it that programs of the image run where the job does, if it is going to run any: every phase asks, so that the first one says
 * what the last ones would fail of.
 * @throws JobFailure with what to do where they do not
 */
export async function providePrograms(phase: PhaseName, job: JobSpec, options: ProgramOptions): Promise<void> {
  const { arch } = job;
  if (!isForeign(arch) || (await runsProgramsOf(arch, options))) return;
  if (options.emulation) {
    if (WITH_PROGRAMS.has(phase)) await registerEmulator(arch, options.commands);
    return;
  }
  // Without a jail the programs of a shell are not the image's: files can be changed all the same.
  if (job.job_type === 'customize' && !job.shell.jail) return;
  throw new JobFailure(
    `programs of ${arch} do not run on the machine that the job is on: use one of that architecture, or set JOB_EMULATION=true, which registers qemu-user for it`,
  );
}

/** Whether an architecture is another than that of the machine. */
export function isForeign(arch: Arch): boolean {
  return process.arch !== MACHINE_OF_ARCH[arch];
}

/**
 * Whether programs of an architecture run here: by themselves, or by an emulator that the kernel knows. The smallest one is tried, since the
 * kernel's list is not to be seen in every container.
 */
export async function runsProgramsOf(arch: Arch, { directory, commands }: ProgramOptions): Promise<boolean> {
  const program = join(directory, `program-${process.pid}`);
  await writeFile(program, elfProgram(ELF_MACHINE[arch], EXIT[arch]), { mode: 0o700 });
  try {
    return await commands.run(program, []).then(
      () => false,
      (error: unknown) => {
        if (!(error instanceof CommandFailed || error instanceof CommandMissing)) throw error;
        return error instanceof CommandFailed && error.code === EXIT_CODE;
      },
    );
  } finally {
    await rm(program, { force: true });
  }
}

/**
 * Has the kernel run programs of an architecture by qemu-user. That holds for all that the kernel runs, until it is started again.
 * @throws JobFailure with what to do where that is not possible
 */
async function registerEmulator(arch: Arch, commands: Commands): Promise<void> {
  const description = await readFile(join(DESCRIPTIONS, `qemu-${arch}.conf`), 'utf8').catch(() => null);
  if (description === null)
    throw new JobFailure(
      `JOB_EMULATION runs programs of ${arch} by qemu-user, which is missing: apt-get install -y --no-install-recommends qemu-user-static`,
    );
  try {
    if (!(await exists(join(BINFMT, 'register')))) await commands.run('mount', ['-t', 'binfmt_misc', 'none', BINFMT]);
    if (await isRegistered(arch)) return;
    await writeFile(join(BINFMT, 'register'), description.trim());
  } catch (error) {
    // Another job may have been faster.
    if (await isRegistered(arch)) return;
    throw new JobFailure(
      `JOB_EMULATION cannot register the emulator of ${arch} (${(error as Error).message}): let jobs mount and write ${BINFMT}, or register qemu-${arch} before they start`,
      { cause: error },
    );
  }
}

async function isRegistered(arch: Arch): Promise<boolean> {
  const entry = await readFile(join(BINFMT, `qemu-${arch}`), 'utf8').catch(() => '');
  return entry.startsWith('enabled');
}

function exists(file: string): Promise<boolean> {
  return access(file).then(
    () => true,
    () => false,
  );
}
