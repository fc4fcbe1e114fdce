import { createHash, randomUUID } from 'node:crypto';
import { access, mkdir, readdir, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { CommandFailed, type Commands } from '../commands.js';
import { JobFailure } from '../job-failure.js';
import type { Log } from '../log.js';
import { withoutCredentials } from '../without-credentials.js';

/** What is installed: every package by its version and the hashes of its files. */
const REQUIREMENTS = join(import.meta.dirname, 'requirements.txt');
/** What the sources of KIWI-NG are built with, out of the same list; it must be there before. */
const BUILDER = 'poetry-core';
/** Stands in an environment that is whole. */
const COMPLETE = 'ims-complete';
/** Milliseconds after which an environment that is not whole was left by somebody who died. */
const ABANDONED = 3_600_000;

/** Everything is taken as it was packed, but KIWI-NG, which comes as sources. */
const PIP =
  '-m pip install --quiet --no-input --no-cache-dir --disable-pip-version-check --require-hashes --no-build-isolation --only-binary=:all: --no-binary=kiwi'.split(
    ' ',
  );

/**
 * Provides the Python environment with KIWI-NG and Jinja2. It is made once for each list of requirements and each Python, beside others,
 * and is whole when it has its name: several may make it at once, and anybody may die meanwhile.
 * @param directory that holds environments and nothing else
 * @returns the path of its interpreter
 * @throws JobFailure where it cannot be installed
 */
export async function provideKiwi(directory: string, commands: Commands, log: Log): Promise<string> {
  const home = join(directory, await versionOf(commands));
  const python = join(home, 'bin/python');
  if (await exists(join(home, COMPLETE))) return python;
  await mkdir(directory, { recursive: true });
  await removeAbandoned(directory);
  log('installs KIWI-NG, once for this machine');
  const temporary = join(directory, `.${randomUUID()}`);
  try {
    await install(temporary, commands);
    await rename(temporary, home).catch(refuseUnlessThere);
  } catch (error) {
    throw error instanceof CommandFailed ? cannotInstall(error) : error;
  } finally {
    await rm(temporary, { recursive: true, force: true });
  }
  log('installed KIWI-NG');
  return python;
}

/** Names an environment: another Python, or another list, makes another one. */
async function versionOf(commands: Commands): Promise<string> {
  const { stdout } = await commands.run('python3', ['-c', 'import sys; print(sys.version, sys.prefix)']);
  const hash = createHash('sha256')
    .update(stdout)
    .update(await readFile(REQUIREMENTS));
  return hash.digest('hex').slice(0, 16);
}

async function install(home: string, commands: Commands): Promise<void> {
  await commands.run('python3', ['-m', 'venv', home]);
  const python = join(home, 'bin/python');
  const builder = join(home, 'builder.txt');
  await writeFile(builder, requirementOf(await readFile(REQUIREMENTS, 'utf8'), BUILDER));
  await commands.run(python, [...PIP, '--requirement', builder]);
  await commands.run(python, [...PIP, '--requirement', REQUIREMENTS]);
  await writeFile(join(home, COMPLETE), '');
}

/** The lines of one package: its name, and the hashes that are indented below. */
function requirementOf(list: string, name: string): string {
  const [, lines] = new RegExp(`^(${name}==.*(?:\\n +--hash.*)+)`, 'm').exec(list) ?? [];
  if (!lines) throw new Error(`${REQUIREMENTS} has no ${name}`);
  return `${lines}\n`;
}

function cannotInstall(error: CommandFailed): JobFailure {
  const why = withoutCredentials(error.stderr).trim().split('\n').at(-1)?.slice(0, 300);
  return new JobFailure(
    `KIWI-NG cannot be installed on the machine that runs the job: ${why}. It comes from PyPI: let the machine reach that, or name an index in /etc/pip.conf; \`npm run setup:create\` tries it again`,
    { cause: error },
  );
}

/** Somebody else may have been faster, with the same result. */
function refuseUnlessThere(error: NodeJS.ErrnoException): void {
  if (error.code !== 'ENOTEMPTY' && error.code !== 'EEXIST') throw error;
}

async function removeAbandoned(directory: string): Promise<void> {
  for (const name of await readdir(directory)) {
    const path = join(directory, name);
    const found = name.startsWith('.') ? await stat(path).catch(() => null) : null;
    if (found && Date.now() - found.mtimeMs > ABANDONED) await rm(path, { recursive: true, force: true });
  }
}

async function exists(file: string): Promise<boolean> {
  return access(file).then(
    () => true,
    () => false,
  );
}
