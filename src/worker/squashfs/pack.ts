import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { Compression, Packing } from '../../protocol/job-spec.js';
import type { PackingReport } from '../../protocol/job-report.js';
import type { MountedRoot } from '../image-root.js';
import { JobFailure } from '../job-failure.js';
import type { CopiedRange } from '../part-plan.js';
import type { PhaseContext } from '../phases/phase.js';
import { BadSquashfs } from './bad-squashfs.js';
import { packPlan } from './delta.js';
import { DeltaPlan } from './delta-plan.js';
import { readMergedTree } from './merged-tree.js';
import { CodecMissing } from './native-codecs.js';
import { readSuperblock } from './superblock.js';
import { SquashfsLimit } from './tree-writer.js';

/** How an image is to be packed. */
interface Target {
  compression: Compression;
  /** Null for the default of the compression. */
  level: number | null;
  /** Bytes of a data block. */
  blockSize: number;
}

/** A packing that is on its way. */
export interface RunningPacking {
  /** Settles before the first byte is written: where the new image will have the bytes of the source. */
  copied: Promise<CopiedRange[]>;
  /** Settles when the image is written. */
  done: Promise<PackingReport>;
}

/**
 * Packs an image root into a SquashFS image with the compression and the block size of the source, or as the settings say. Where the source
 * is mounted below the changes and its compression stays, its blocks are reused; otherwise mksquashfs packs all of it. Both write strictly
 * forward, and the superblock, which makes the file an image, last. The packing rejects with CommandFailed where mksquashfs fails, and
 * with JobFailure where the source is damaged.
 */
export function startPacking(context: PhaseContext, root: MountedRoot, abort: AbortSignal): RunningPacking {
  const begun = begin(context, root, abort);
  const copied = begun.then(({ plan }) => plan?.copied ?? []);
  const done = begun.then(({ plan, target }) => pack(context, root, target, plan, abort));
  // They may fail before anybody waits for them.
  for (const promise of [copied, done]) promise.catch(() => {});
  return { copied, done };
}

/** Decides how to pack; nothing is written yet. */
async function begin(
  context: PhaseContext,
  root: MountedRoot,
  abort: AbortSignal,
): Promise<{ target: Target; plan: DeltaPlan | null }> {
  const { job, directory, log } = context;
  const source = await sourcePacking(context);
  const compression = job.packing.compression === 'source' ? source.compression : job.packing.compression;
  const target = { compression, level: levelOf(compression, job.packing), blockSize: source.blockSize };
  log('packs', { compression, level: target.level, block_size: target.blockSize });
  await rm(directory.image, { force: true });
  const isReusable = root.pristine !== null && compression === source.compression;
  return { target, plan: isReusable ? await planReuse(context, root, target, abort) : null };
}

async function pack(
  context: PhaseContext,
  root: MountedRoot,
  target: Target,
  plan: DeltaPlan | null,
  abort: AbortSignal,
): Promise<PackingReport> {
  const report = plan ? await packReusing(context, plan) : await packWhole(context, root, target, abort);
  context.log('packed', { ...report });
  return report;
}

/** As the source was packed. An image that is built has none: every kernel reads gzip, and this is the block size of mksquashfs. */
async function sourcePacking({ job, directory }: PhaseContext): Promise<Pick<Target, 'compression' | 'blockSize'>> {
  return job.job_type === 'customize' ? readSuperblock(directory.source) : { compression: 'gzip', blockSize: 131_072 };
}

/** Only these compressions have a level that pays. */
function levelOf(compression: Compression, packing: Packing): number | null {
  if (compression === 'gzip') return packing.gzipLevel;
  return compression === 'zstd' ? packing.zstdLevel : null;
}

/** Plans to reuse the blocks of the source. Null where its tables cannot be read here; the kernel and mksquashfs may know better. */
async function planReuse(
  { directory, log }: PhaseContext,
  root: MountedRoot,
  { level }: Target,
  signal: AbortSignal,
): Promise<DeltaPlan | null> {
  const overlay = { merged: root.path, upper: directory.upper, index: join(directory.work, 'index') };
  try {
    return await DeltaPlan.make({ source: directory.source, level, signal }, (image) => readMergedTree(image, overlay));
  } catch (error) {
    if (!(error instanceof BadSquashfs || error instanceof CodecMissing)) throw error;
    log('blocks of the source cannot be reused; mksquashfs packs all of it', { reason: error.message });
    return null;
  }
}

/** What was written may be uploaded already: from here on there is no other way to pack. */
async function packReusing({ job, directory, log }: PhaseContext, plan: DeltaPlan): Promise<PackingReport> {
  try {
    const { processors } = job.packing;
    const report = await packPlan(plan, { output: directory.image, processors });
    if (report.droppedXattrs > 0) log('extended attributes that SquashFS cannot hold', { count: report.droppedXattrs });
    const { bytes, reusedBytes, seconds } = report;
    return { method: 'delta', bytes, bytes_reused: reusedBytes, bytes_new: bytes - reusedBytes, seconds };
  } catch (error) {
    if (error instanceof SquashfsLimit) throw new JobFailure(error.message, { cause: error });
    if (!(error instanceof BadSquashfs)) throw error;
    throw new JobFailure(`the rootfs of the source image ${error.message}`, { cause: error });
  } finally {
    plan.close();
  }
}

async function packWhole(
  { job, directory, commands, log }: PhaseContext,
  root: MountedRoot,
  { compression, level, blockSize }: Target,
  signal: AbortSignal,
): Promise<PackingReport> {
  const { memoryMib, processors } = job.packing;
  const started = performance.now();
  const options = [
    ['-noappend', '-no-progress', '-quiet'],
    ['-comp', compression, ...(level ? ['-Xcompression-level', String(level)] : [])],
    ['-b', String(blockSize), '-mem', `${memoryMib}M`],
    processors ? ['-processors', String(processors)] : [],
  ];
  await commands.run('mksquashfs', [root.path, directory.image, ...options.flat()], {
    signal,
    onLine: (line) => line && log('mksquashfs', { line }),
  });
  const { size } = await readSuperblock(directory.image);
  const seconds = { compress: (performance.now() - started) / 1000 };
  return { method: 'full', bytes: size, bytes_reused: 0, bytes_new: size, seconds };
}
