import { execFile } from 'node:child_process';
import { access, readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { promisify } from 'node:util';
import type { Arch } from '../../../protocol/arch.js';
import { COMMAND_PATH } from './requirements.js';

const run = promisify(execFile);

/** Where the kernel tells which programs it hands to interpreters, and takes further ones (Documentation/admin-guide/binfmt-misc.rst). */
const BINFMT = '/proc/sys/fs/binfmt_misc';
/** Where Debian's qemu-user-static says how its emulators are to be registered: opened at once, so that they work in every root. */
const DESCRIPTIONS = '/usr/lib/binfmt.d';
/** The machine's name of each architecture, as `process.arch` tells it. */
const MACHINE_OF_ARCH: Record<Arch, string> = { x86_64: 'x64', aarch64: 'arm64' };

/** Whether programs of an architecture run on this machine: by themselves, or by an emulator that the kernel knows. */
export async function runsProgramsOf(arch: Arch): Promise<boolean> {
  if (process.arch === MACHINE_OF_ARCH[arch]) return true;
  const entry = await readFile(path.join(BINFMT, `qemu-${arch}`), 'utf8').catch(() => '');
  return entry.startsWith('enabled');
}

/**
 * Has the kernel run programs of an architecture by qemu-user. That holds for the whole machine, until it is started again.
 * @returns why that is not possible, and what to do; null where it is done
 */
export async function registerEmulator(arch: Arch): Promise<string | null> {
  const description = await readFile(path.join(DESCRIPTIONS, `qemu-${arch}.conf`), 'utf8').catch(() => null);
  if (description === null)
    return `JOB_EMULATION runs programs of ${arch} by qemu-user, which is missing: apt-get install -y --no-install-recommends qemu-user-static`;
  try {
    await mountBinfmt();
    await writeFile(path.join(BINFMT, 'register'), description.trim());
  } catch (error) {
    // Another job, or another server, may have been faster.
    if (await runsProgramsOf(arch)) return null;
    return `JOB_EMULATION cannot register the emulator of ${arch} (${(error as NodeJS.ErrnoException).code}): let the server mount and write ${BINFMT}, or register qemu-${arch} before it is started`;
  }
  return null;
}

async function mountBinfmt(): Promise<void> {
  const isMounted = await access(path.join(BINFMT, 'register')).then(
    () => true,
    () => false,
  );
  if (!isMounted) await run('mount', ['-t', 'binfmt_misc', 'none', BINFMT], { env: { PATH: COMMAND_PATH } });
}
