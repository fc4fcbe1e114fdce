import { copyFile, readdir, readFile, rename, rm } from 'node:fs/promises';
import { join, relative } from 'node:path';
import type { CreateSpec } from '../../protocol/job-spec.js';
import { writeBuildOutcome } from '../build-outcome.js';
import { CommandFailed } from '../commands.js';
import { failureReason } from '../failure-reason.js';
import { JobIsOver } from '../ims-client.js';
import { isMissing, openInRoot, writeInRoot } from '../in-root.js';
import { BuildGuard } from '../kiwi/build-guard.js';
import { enterBuildPlace } from '../kiwi/build-place.js';
import { provideKiwi } from '../kiwi/kiwi-environment.js';
import { runKiwi } from '../kiwi/run-kiwi.js';
import { readDescription } from '../recipe/recipe-description.js';
import { packageOfKey } from '../rpm/package-signer.js';
import type { PhaseContext } from './phase.js';

/** Where Debian's tools look for certificates to trust. */
const DEBIAN_ANCHOR = '/usr/local/share/ca-certificates/cray_certificate_authority.crt';

/**
 * Builds the image root from the recipe. Where it fails and somebody wants to look at what is left, the phase ends well and hands on why
 * the build did not.
 */
export async function buildImage(context: PhaseContext<CreateSpec>): Promise<void> {
  const { directory, ims } = context;
  await ims.report({ status: 'building_image' });
  try {
    await build(context);
    await writeBuildOutcome(directory, { failure: null });
  } catch (error) {
    await handOn(context, error);
  }
}

async function build(context: PhaseContext<CreateSpec>): Promise<void> {
  const { job, directory, commands, log, kiwiDirectory } = context;
  const python = await provideKiwi(kiwiDirectory, commands, log);
  const { packageManager } = await readDescription(directory.recipe);
  const isDebian = packageManager === 'apt';
  await enterBuildPlace(directory, job.ca_certificate);
  const firstPackage = job.ca_certificate && !isDebian ? relative(directory.path, directory.caPackage) : null;
  const caKey = await readFile(directory.caKey, 'utf8').catch(nullIfMissing);
  const guard = new BuildGuard(context);
  try {
    await runKiwi(context, guard, {
      python,
      firstPackage,
      firstKey: caKey && relative(directory.path, directory.caKey),
    });
    await keepPackages(context);
    await takeRoot(context);
    if (caKey) await forgetKey(context, guard, caKey);
    if (job.ca_certificate && isDebian) await trustInDebian(context, guard, job.ca_certificate);
  } finally {
    guard.close();
  }
}

/** The root becomes the image root of the job. */
async function takeRoot({ directory }: PhaseContext): Promise<void> {
  await rename(join(directory.build, 'build/image-root'), directory.tree);
}

/** Keeps the list of packages, and removes the archive of the root, which takes space. */
async function keepPackages({ directory, commands, log }: PhaseContext): Promise<void> {
  const names = await readdir(directory.build);
  const list = names.find((name) => name.endsWith('.packages'));
  if (list) await copyFile(join(directory.build, list), directory.packages);
  else log('KIWI-NG wrote no list of packages');
  const archives = names.filter((name) => name.includes('.tar.')).map((name) => join(directory.build, name));
  if (archives.length) await commands.run('rm', ['--', ...archives]);
}

/** Packages of Debian have no place for it before their own root is there. */
async function trustInDebian(
  { directory, log }: PhaseContext,
  guard: BuildGuard,
  caCertificate: string,
): Promise<void> {
  await writeInRoot(directory.tree, DEBIAN_ANCHOR, caCertificate, 0o644);
  const update = '/usr/sbin/update-ca-certificates';
  const found = await openInRoot(directory.tree, update).catch(nullIfMissing);
  await found?.close();
  if (!found) return log('the image has no ca-certificates: programs in it do not trust the site CA by themselves');
  await guard.run(['chroot', directory.tree, update]).catch((error: unknown) => {
    if (!(error instanceof CommandFailed)) throw error;
    log('the image does not take the certificate of the site CA', { error: error.message });
  });
}

/** The key has done its part: its private half is gone, and nobody is to wonder whose it is. */
async function forgetKey({ directory, log }: PhaseContext, guard: BuildGuard, publicKey: string): Promise<void> {
  // The image's own rpm knows its database best. Not every image has one, and busybox has one that cannot do this.
  const programs = [
    ['chroot', directory.tree, 'rpm'],
    ['rpm', '--root', directory.tree, '--dbpath', '/var/lib/rpm'],
  ];
  const erase = ['--erase', '--allmatches', await packageOfKey(publicKey)];
  const failures: string[] = [];
  for (const rpm of programs) {
    try {
      return await guard.run([...rpm, ...erase]);
    } catch (error) {
      if (!(error instanceof CommandFailed)) throw error;
      failures.push(error.message);
    }
  }
  log('the key of the package with the certificate stays in the image', { failures });
}

function nullIfMissing(error: unknown): null {
  if (isMissing(error)) return null;
  throw error;
}

/** Hands on a failure that somebody wants to look at; any other is thrown on. */
async function handOn(context: PhaseContext<CreateSpec>, error: unknown): Promise<void> {
  const { job, directory, disk, log } = context;
  const isFull = (await disk.free()) < 0;
  // The database of the server may be on that disk, and could not even take down that the job has ended.
  if (isFull) for (const left of [directory.build, directory.tree]) await rm(left, { recursive: true, force: true });
  if (isFull || error instanceof JobIsOver || !job.shell) throw error;
  await takeRoot(context).catch((missing: unknown) => {
    if (!isMissing(missing)) throw missing;
    // A build that failed before it made a root left nothing to look at.
    throw error;
  });
  const failure = failureReason(error, 'build-image', context.place);
  log('failed; a shell is opened in what is left', { reason: failure });
  await writeBuildOutcome(directory, { failure });
}
