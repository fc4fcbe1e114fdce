import { access, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Arch } from '../protocol/arch.js';
import type { Commands } from './commands.js';
import { JobFailure } from './job-failure.js';

/** Where the kernel tells which programs it hands to interpreters, and takes further ones (Documentation/admin-guide/binfmt-misc.rst). */
const BINFMT = '/proc/sys/fs/binfmt_misc';
/** Where Debian's qemu-user-static says how its emulators are to be registered: opened at once, so that they work in every root. */
const DESCRIPTIONS = '/usr/lib/binfmt.d';
/** The machine's name of each architecture, as `process.arch` tells it. */
const MACHINE_OF_ARCH: Record<Arch, string> = { x86_64: 'x64', aarch64: 'arm64' };

/**
 * Has the kernel run programs of an architecture by qemu-user, where they do not run by themselves. That holds for all that the kernel runs,
 * until it is started again.
 * @throws JobFailure with what to do where that is not possible
 */
export async function provideEmulator(arch: Arch, commands: Commands): Promise<void> {
  if (process.arch === MACHINE_OF_ARCH[arch]) return;
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
