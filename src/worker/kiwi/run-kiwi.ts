import { mkdir, readdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { CreateSpec } from '../../protocol/job-spec.js';
import type { JobProgress } from '../../protocol/job-report.js';
import { JobFailure } from '../job-failure.js';
import { JobIsOver } from '../ims-client.js';
import type { PhaseContext } from '../phases/phase.js';
import { withoutCredentials } from '../without-credentials.js';
import { BUILD_PLACE, OWN_NAMESPACES } from './build-place.js';
import { KiwiOutput } from './kiwi-output.js';

/** Milliseconds between two looks at the disk. */
const DISK_INTERVAL = 2000;
/** Milliseconds between two reports of progress. */
const PROGRESS_INTERVAL = 1000;

/**
 * Builds never need these, however much their scripts are root: kernel modules are built, not loaded, and the machine stays as it is.
 */
const FORBIDDEN_CAPABILITIES = [
  'audit_control',
  'bpf',
  'mac_admin',
  'mac_override',
  'net_admin',
  'perfmon',
  'sys_boot',
  'sys_module',
  'sys_pacct',
  'sys_rawio',
  'sys_time',
  'syslog',
  'wake_alarm',
];

const BOUNDS = ['setpriv', '--bounding-set', FORBIDDEN_CAPABILITIES.map((name) => `-${name}`).join(',')];
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
export async function runKiwi(context: PhaseContext<CreateSpec>, options: KiwiOptions): Promise<void> {
  const { directory, commands } = context;
  await writeFile(directory.kiwiConfig, CONFIG);
  const output = new KiwiOutput();
  const guard = new BuildGuard(context);
  try {
    const kiwi = [options.python, ...KIWI, ...(await argumentsOf(context, options))];
    const command = await commands.start('unshare', [...OWN_NAMESPACES, '--', ...BOUNDS, '--', ...kiwi], {
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
    throw failed(output, code, signal);
  } finally {
    guard.close();
  }
}

function failed(output: KiwiOutput, code: number | null, signal: string | null): JobFailure {
  const hidden = [`${BUILD_PLACE}/build/build/image-root`, `${BUILD_PLACE}/recipe/`, `${BUILD_PLACE}/`];
  const reason = output.reason(hidden) ?? `KIWI-NG ended with ${signal ?? `code ${code}`} and did not say why`;
  return new JobFailure(`the image could not be built: ${reason}`);
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

/** Ends a build when the job is over or the disk is full, and tells how far it is. */
class BuildGuard {
  private readonly abort = new AbortController();
  private readonly timers: NodeJS.Timeout[];
  private latest: JobProgress | null = null;
  private reporting = false;

  constructor(private readonly context: PhaseContext) {
    const end = (error: unknown) => this.abort.abort(error);
    this.timers = [
      setInterval(() => void context.disk.expectFree(0).catch(end), DISK_INTERVAL),
      setInterval(() => void this.tell().catch(end), PROGRESS_INTERVAL),
    ];
  }

  get signal(): AbortSignal {
    return this.abort.signal;
  }

  report(progress: JobProgress): void {
    this.latest = progress;
  }

  /** Only the latest is told, one at a time; the server is asked in any case whether the job still goes on. */
  private async tell(): Promise<void> {
    if (this.reporting || !this.latest) return;
    this.reporting = true;
    try {
      const progress = this.latest;
      this.latest = null;
      await this.context.ims.reportProgress(progress);
    } finally {
      this.reporting = false;
    }
  }

  throwIfAborted(): void {
    const reason: unknown = this.abort.signal.reason;
    if (this.abort.signal.aborted) throw reason instanceof Error ? reason : new JobIsOver();
  }

  close(): void {
    for (const timer of this.timers) clearInterval(timer);
  }
}
