import { execFileSync } from 'node:child_process';
import { existsSync, writeFileSync } from 'node:fs';
import { mkdir, rm, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { aarch64Program } from './aarch64-program.js';
import type { System } from './system.js';

const BINFMT = '/proc/sys/fs/binfmt_misc';
/** What the kernel tells of the emulator, where it knows it. */
export const EMULATOR = path.join(BINFMT, 'qemu-aarch64');
/** Where programs of the tests tell on which machine they ran. */
export const MADE_BY = '/made-by';

/** Whether binfmt_misc was mounted before these tests. */
const wasMounted = existsSync(path.join(BINFMT, 'register'));

/** Does something while binfmt_misc is mounted here. */
function withBinfmt<T>(look: () => T): T {
  const isMounted = existsSync(path.join(BINFMT, 'register'));
  if (!isMounted) execFileSync('mount', ['-t', 'binfmt_misc', 'none', BINFMT], { stdio: 'pipe' });
  try {
    return look();
  } finally {
    if (!isMounted) execFileSync('umount', [BINFMT]);
  }
}

/** Whether the kernel hands programs of aarch64 to the emulator. */
export function isEmulating(): boolean {
  return withBinfmt(() => existsSync(EMULATOR));
}

/** Why emulation cannot be tested here; null where it can. */
export function findObstacle(): string | null {
  if (process.arch !== 'x64') return 'this machine is not of x86_64';
  if (!existsSync('/usr/lib/binfmt.d/qemu-aarch64.conf')) return 'qemu-user-static is not installed';
  try {
    return isEmulating() ? 'qemu-aarch64 is registered already, and is not ours to remove' : null;
  } catch {
    return 'binfmt_misc cannot be mounted here';
  }
}

/** The emulator is registered for the whole machine: what a test has registered goes with it. */
export function unregister(): void {
  withBinfmt(() => existsSync(EMULATOR) && writeFileSync(EMULATOR, '-1'));
  if (!wasMounted && existsSync(path.join(BINFMT, 'register'))) execFileSync('umount', [BINFMT]);
}

/**
 * Registers an image of aarch64 that holds a program of that machine.
 * @param place path of the program in the image
 * @param file path of the file to which it writes where it runs
 */
export async function addForeignImage(system: System, place: string, file = MADE_BY): Promise<string> {
  const imageId = await system.addImage({
    prepare: async (root) => {
      await mkdir(path.join(root, path.dirname(place)), { recursive: true });
      await rm(path.join(root, place), { force: true });
      await writeFile(path.join(root, place), aarch64Program(file), { mode: 0o755 });
    },
  });
  await system.api.request('PATCH', `/images/${imageId}`, { arch: 'aarch64' });
  return imageId;
}
