import { readFile } from 'node:fs/promises';
import type { Arch } from '../../../protocol/arch.js';

/** The machine's name of each architecture, as `process.arch` tells it. */
const MACHINE_OF_ARCH: Record<Arch, string> = { x86_64: 'x64', aarch64: 'arm64' };

/** Whether programs of an architecture run on this machine: by themselves, or by an emulator that its kernel knows (binfmt_misc). */
export async function runsProgramsOf(arch: Arch): Promise<boolean> {
  if (process.arch === MACHINE_OF_ARCH[arch]) return true;
  const entry = await readFile(`/proc/sys/fs/binfmt_misc/qemu-${arch}`, 'utf8').catch(() => '');
  return entry.startsWith('enabled');
}
