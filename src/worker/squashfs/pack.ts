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
import { type FullOptions, packFull, type PackingTarget } from './full.js';
import type { PackingResources } from './image-writer.js';
import { readMergedTree } from './merged-tree.js';
import { CodecMissing } from './native-codecs.js';
import type { ImageReport } from './pack-report.js';
import { NotSquashfs, readSuperblock } from './superblock.js';
import { Stopwatch } from './stopwatch.js';
import { SquashfsLimit } from './tree-writer.js';

/** A packing that is on its way. */
export interface RunningPacking {
  /** Settles before the first byte is written: where the new image will have the bytes of the source. */
  copied: Promise<CopiedRange[]>;
  /** Settles when the image is written. */
  done: Promise<PackingReport>;
}

const MIB = 1024 * 1024;
/** Of the memory that packing may take: blocks on their way. The tree, its metadata and the program itself take the rest. */
const BLOCKS_SHARE = 0.5;

/**
 * Packs an image root into a SquashFS image with the compression and the block size of the source, or as the settings say. Where the source
 * is mounted below the changes and its compression stays, its blocks are reused; otherwise all of it is compressed. All packers write
 * strictly forward, and the superblock, which makes the file an image, last. The packing rejects with JobFailure where the source is damaged,
 * the root holds more than an image can, or this machine cannot compress as it is asked to; with CommandFailed where mksquashfs fails.
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
): Promise<{ target: PackingTarget; plan: DeltaPlan | null }> {
  const { job, directory, log } = context;
  const source = await sourcePacking(context);
  const compression = job.packing.compression === 'source' ? source.compression : job.packing.compression;
  const target = { compression, level: levelOf(compression, job.packing), blockSize: source.blockSize };
  log('packs', { compression, level: target.level, block_size: target.blockSize });
  await rm(directory.image, { force: true });
  const isReusable = root.pristine !== null && compression === source.compression;
  return { target, plan: isReusable ? await planReuse(context, root, target, abort).catch(refuse) : null };
}

async function pack(
  context: PhaseContext,
  root: MountedRoot,
  target: PackingTarget,
  plan: DeltaPlan | null,
  signal: AbortSignal,
): Promise<PackingReport> {
  const { job, directory, log } = context;
  const { processors, memoryMib } = job.packing;
  const options = { output: directory.image, processors, memory: memoryMib * MIB * BLOCKS_SHARE };
  const { droppedXattrs, bytes, reusedBytes, seconds } = await (
    plan
      ? packReusing(plan, options)
      : packAll(context, { root: root.path, pristine: root.pristine, target, signal, ...options })
  ).catch(refuse);
  if (droppedXattrs > 0) log('extended attributes that SquashFS cannot hold', { count: droppedXattrs });
  const method = plan ? 'delta' : 'full';
  const report = { method, bytes, bytes_reused: reusedBytes, bytes_new: bytes - reusedBytes, seconds } as const;
  log('packed', { ...report });
  return report;
}

/** What was written may be uploaded already: there is no other way to pack from here on. */
function refuse(error: unknown): never {
  if (error instanceof SquashfsLimit || error instanceof CodecMissing)
    throw new JobFailure(error.message, { cause: error });
  if (!(error instanceof BadSquashfs)) throw error;
  throw new JobFailure(`the rootfs of the source image ${error.message}`, { cause: error });
}

/** As the source was packed, where it is a SquashFS image. Otherwise as every kernel reads it, with the block size of mksquashfs. */
async function sourcePacking({
  job,
  directory,
}: PhaseContext): Promise<Pick<PackingTarget, 'compression' | 'blockSize'>> {
  const otherwise = { compression: 'gzip', blockSize: 131_072 } as const;
  if (job.job_type === 'create') return otherwise;
  return readSuperblock(directory.source).catch((error: unknown) => {
    if (error instanceof NotSquashfs) return otherwise;
    throw error;
  });
}

/** Only these compressions have a level that pays. */
function levelOf(compression: Compression, packing: Packing): number | null {
  if (compression === 'gzip') return packing.gzipLevel;
  return compression === 'zstd' ? packing.zstdLevel : null;
}

/** Plans to reuse the blocks of the source. Null where its tables cannot be read here; the kernel may know better. */
async function planReuse(
  { directory, log }: PhaseContext,
  root: MountedRoot,
  { level }: PackingTarget,
  signal: AbortSignal,
): Promise<DeltaPlan | null> {
  const overlay = { merged: root.path, upper: directory.upper, index: join(directory.work, 'index') };
  try {
    return await DeltaPlan.make({ source: directory.source, level, signal }, (image) => readMergedTree(image, overlay));
  } catch (error) {
    if (!(error instanceof BadSquashfs || error instanceof CodecMissing)) throw error;
    log('blocks of the source cannot be reused; all of it is packed', { reason: error.message });
    return null;
  }
}

async function packReusing(plan: DeltaPlan, options: PackingResources & { output: string }): Promise<ImageReport> {
  try {
    return await packPlan(plan, options);
  } finally {
    plan.close();
  }
}

/** Compressions that take so long that nothing else counts: there our packer is as fast as mksquashfs or faster (ADR 11). */
const SLOW_COMPRESSIONS: ReadonlySet<Compression> = new Set(['gzip', 'xz', 'lzo']);

/** What every packer tells. mksquashfs says in the job's log what it drops. */
type Packed = Pick<ImageReport, 'bytes' | 'reusedBytes' | 'droppedXattrs' | 'seconds'>;

/** Packs all of a root. */
async function packAll(context: PhaseContext, options: FullOptions): Promise<Packed> {
  return SLOW_COMPRESSIONS.has(options.target.compression) ? packFull(options) : packByMksquashfs(context, options);
}

async function packByMksquashfs(
  { job, commands, log }: PhaseContext,
  { root, output, target, processors, signal }: FullOptions,
): Promise<Packed> {
  const { compression, level, blockSize } = target;
  const stopwatch = new Stopwatch();
  const options = [
    // Otherwise it puts an empty file in the place of one that it cannot read.
    ['-noappend', '-no-progress', '-quiet', '-exit-on-error'],
    ['-comp', compression, ...(level ? ['-Xcompression-level', String(level)] : [])],
    ['-b', String(blockSize), '-mem', `${job.packing.memoryMib}M`],
    processors ? ['-processors', String(processors)] : [],
  ];
  const onLine = (line: string) => line && log('mksquashfs', { line });
  await stopwatch.time('compress', () =>
    commands.run('mksquashfs', [root, output, ...options.flat()], { signal, onLine }),
  );
  const { size } = await readSuperblock(output);
  return { bytes: size, reusedBytes: 0, droppedXattrs: 0, seconds: stopwatch.seconds };
}
