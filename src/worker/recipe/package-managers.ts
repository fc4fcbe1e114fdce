import type { Arch } from '../../protocol/arch.js';
import { CommandFailed, CommandMissing, type Commands } from '../commands.js';
import { isForeign } from '../emulation.js';
import { JobFailure } from '../job-failure.js';

/** A command of the machine, and Debian's package of it. */
interface Needed {
  command: string;
  package: string;
}

/** By which KIWI-NG installs into a new root. */
const MANAGERS: Readonly<Record<string, Needed>> = {
  zypper: { command: 'zypper', package: 'zypper' },
  dnf4: { command: 'dnf-3', package: 'dnf' },
  apt: { command: 'mmdebstrap', package: 'mmdebstrap' },
};
/** Without it mmdebstrap makes no root of another architecture than the machine's. */
const ARCH_TEST: Needed = { command: 'arch-test', package: 'arch-test' };

/**
 * Says at once what a recipe installs by and the machine lacks, not after all repositories have answered. Other package managers are for
 * KIWI-NG to judge.
 * @param manager as recipes name it; null where none is known
 * @throws JobFailure with what to install
 */
export async function refuseMissingManager(manager: string | null, arch: Arch, commands: Commands): Promise<void> {
  const known = manager === null ? undefined : MANAGERS[manager];
  if (!known) return;
  for (const needed of manager === 'apt' && isForeign(arch) ? [known, ARCH_TEST] : [known]) {
    if (await isThere(needed.command, commands)) continue;
    const what = needed === known ? manager : `${manager} for ${arch}, which needs ${needed.command}`;
    throw new JobFailure(
      `the recipe installs by ${what}, which is missing on the machine that runs the job: apt-get install -y --no-install-recommends ${needed.package}`,
    );
  }
}

async function isThere(command: string, commands: Commands): Promise<boolean> {
  return commands.run(command, ['--version']).then(
    () => true,
    (error: unknown) => {
      if (error instanceof CommandMissing) return false;
      if (error instanceof CommandFailed) return true;
      throw error;
    },
  );
}
