import { mkdir, readdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { CreateSpec } from '../../protocol/job-spec.js';
import { JobFailure } from '../job-failure.js';
import { countOomKills } from '../memory-limit.js';
import type { PhaseContext } from '../phases/phase.js';
import { withoutCredentials } from '../without-credentials.js';
import type { BuildGuard } from './build-guard.js';
import { BUILD_PLACE, CONFINED } from './build-place.js';
import { KiwiOutput } from './kiwi-output.js';

const KIWI = ['-c', 'import sys; from kiwi.kiwi import main; sys.exit(main())'];

/** KIWI-NG packs the root into an archive that nobody uses; its scripts run on the way to it. So packing has to be quick. */
const CONFIG = 'xz:\n  options: -0 --threads=0\n';

/** Names in the job directory. */
const NAMES = { target: 'build', keys: 'signing-keys' };

export interface KiwiOptions {
  /** Interpreter of the environment that has KIWI-NG. */
  python: string;
  /** File in the job directory: a package that is installed before all others; null for none. */
  firstPackage: string | null;
  /** File in the job directory: the public key of that package; null where it is not signed. */
  firstKey: string | null;
}

/**
 * Builds the recipe of the job directory, in the place that `enterBuildPlace` has made.
 * @throws JobFailure with what KIWI-NG said, JobIsOver
 */
export async function runKiwi(
  context: PhaseContext<CreateSpec>,
  guard: BuildGuard,
  options: KiwiOptions,
): Promise<void> {
  const { directory, commands } = context;
  await writeFile(directory.kiwiConfig, CONFIG);
  const output = new KiwiOutput();
  const killedBefore = await countOomKills();
  const kiwi = [options.python, ...KIWI, ...(await argumentsOf(context, options))];
  const command = await commands.start('unshare', [...CONFINED, ...kiwi], {
    env: { HOME: '/root', TMPDIR: '/var/tmp' },
    cwd: BUILD_PLACE,
    signal: guard.signal,
    onLine: (line, stream) => {
      print(line);
      const progress = output.add(line, stream);
      if (progress) guard.report(progress);
    },
  });
  const { code, signal } = await command.ended;
  guard.throwIfAborted();
  if (code === 0) return;
  // A full disk shows in many ways; what is left of the build still fills it.
  await context.disk.expectFree(0);
  throw failed(output, code, signal, (await countOomKills()) > killedBefore);
}

const OUT_OF_MEMORY =
  'programs of it were killed, since the job took more memory than it may: start it again with a larger job_mem_size';

function failed(output: KiwiOutput, code: number | null, signal: string | null, outOfMemory: boolean): JobFailure {
  const hidden = [`${BUILD_PLACE}/build/build/image-root`, `${BUILD_PLACE}/recipe/`, `${BUILD_PLACE}/`];
  const reason = output.reason(hidden) ?? `KIWI-NG ended with ${signal ?? `code ${code}`} and did not say why`;
  return new JobFailure(`the image could not be built: ${outOfMemory ? `${OUT_OF_MEMORY} (${reason})` : reason}`);
}

/** A line of the log as KIWI-NG printed it, but for what would change the terminal of its reader, and credentials. */
function print(line: string): void {
  const text = withoutCredentials(line.replaceAll('\r', '\n')).replace(/[^\P{Cc}\n\t]/gu, '');
  if (text.trim()) process.stdout.write(`${text.trim()}\n`);
}

async function argumentsOf(
  context: PhaseContext<CreateSpec>,
  { firstPackage, firstKey }: KiwiOptions,
): Promise<string[]> {
  const { job } = context;
  // All that KIWI-NG can tell is in the log, so that no build has to be repeated to learn why it failed.
  const settings = ['--debug', '--config', join(BUILD_PLACE, 'kiwi.yml'), '--type', 'tbz'];
  const caches = ['--temp-dir', '/var/tmp', '--shared-cache-dir', '/var/cache/kiwi'];
  const [recipe, target] = ['recipe', NAMES.target].map((name) => join(BUILD_PLACE, name));
  const keys = [...(await copySigningKeys(context)), ...(firstKey ? [join(BUILD_PLACE, firstKey)] : [])];
  return [
    ...settings,
    ...caches,
    '--target-arch',
    job.arch,
    'system',
    'build',
    `--description=${recipe}`,
    `--target-dir=${target}`,
    ...(firstPackage ? [`--add-bootstrap-package=file://${join(BUILD_PLACE, firstPackage)}`] : []),
    ...keys.map((key) => `--signing-key=${key}`),
  ];
}

/** Where builds can read them, whatever is mounted over their own directory. */
async function copySigningKeys({ signingKeysDirectory, directory, commands }: PhaseContext): Promise<string[]> {
  if (!signingKeysDirectory) return [];
  const target = join(directory.path, NAMES.keys);
  await mkdir(target, { recursive: true });
  const entries = await readdir(signingKeysDirectory, { withFileTypes: true }).catch((error: NodeJS.ErrnoException) => {
    throw new JobFailure(
      `the signing keys cannot be read (${error.code}): set JOB_SIGNING_KEYS_DIR to a directory of keys`,
    );
  });
  // A Secret of Kubernetes is a directory of links, beside which it keeps directories of its own.
  const names = entries.filter((entry) => !entry.isDirectory() && !entry.name.startsWith('.')).map(({ name }) => name);
  for (const name of names)
    await commands.run('cp', ['--dereference', '--', join(signingKeysDirectory, name), join(target, name)]);
  return names.map((name) => join(BUILD_PLACE, NAMES.keys, name));
}
