import { CommandFailed, CommandMissing, type Commands } from '../commands.js';
import { refuseMissingManager } from './package-managers.js';

const OWN = process.arch === 'arm64' ? 'aarch64' : 'x86_64';
const OTHER = process.arch === 'arm64' ? 'x86_64' : 'aarch64';

/** A machine that has these commands; none of them knows `--version`. */
const machineWith = (...installed: string[]) =>
  ({
    run: async (command: string) => {
      if (!installed.includes(command)) throw new CommandMissing(command);
      throw new CommandFailed(command, { code: 2, signal: null, stderr: '' });
    },
  }) as unknown as Commands;

it.each([
  ['zypper', OWN, ['zypper']],
  ['dnf4', OTHER, ['dnf-3']],
  ['apt', OWN, ['mmdebstrap']],
  ['apt', OTHER, ['mmdebstrap', 'arch-test']],
  ['pacman', OWN, []],
  [null, OWN, []],
] as const)('a recipe that installs by %s for %s is built where %j are there', async (manager, arch, commands) => {
  await refuseMissingManager(manager, arch, machineWith(...commands));
});

it.each([
  ['zypper', OWN, [], /^the recipe installs by zypper, which is missing .*: apt-get install .* zypper$/],
  ['dnf4', OWN, ['dnf'], /^the recipe installs by dnf4, which is missing .*: apt-get install .* dnf$/],
  ['apt', OTHER, ['mmdebstrap'], /by apt for \w+, which needs arch-test, which is missing .*: .* arch-test$/],
] as const)('a recipe that installs by %s for %s is not where only %j are', async (manager, arch, commands, reason) => {
  await expect(refuseMissingManager(manager, arch, machineWith(...commands))).rejects.toThrow(reason);
});
