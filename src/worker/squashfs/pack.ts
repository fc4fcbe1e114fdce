import { rm } from 'node:fs/promises';
import type { Compression } from '../../protocol/job-spec.js';
import type { PhaseContext } from '../phases/phase.js';
import { readSuperblock } from './superblock.js';

/**
 * Packs an image root into a SquashFS image with the compression and the block size of the source, or as the settings say. mksquashfs
 * writes strictly forward, and the superblock, which makes the file an image, last.
 * @throws CommandFailed where mksquashfs fails
 */
export async function packSquashfs(
  { job, directory, commands, log }: PhaseContext,
  root: string,
  abort: AbortSignal,
): Promise<void> {
  const { packing } = job;
  const source = await readSuperblock(directory.source);
  const compression = packing.compression === 'source' ? source.compression : packing.compression;
  const level = levelOf(compression, packing);
  log('packs', { compression, level, block_size: source.blockSize });
  await rm(directory.image, { force: true });
  const started = Date.now();
  const options = [
    ['-noappend', '-no-progress', '-quiet'],
    ['-comp', compression, ...(level ? ['-Xcompression-level', String(level)] : [])],
    ['-b', String(source.blockSize), '-mem', `${packing.memoryMib}M`],
    packing.processors ? ['-processors', String(packing.processors)] : [],
  ];
  await commands.run('mksquashfs', [root, directory.image, ...options.flat()], {
    signal: abort,
    onLine: (line) => line && log('mksquashfs', { line }),
  });
  log('packed', { bytes: (await readSuperblock(directory.image)).size, seconds: (Date.now() - started) / 1000 });
}

/** Only these compressions have a level that pays. */
function levelOf(compression: Compression, packing: { gzipLevel: number; zstdLevel: number }): number | null {
  if (compression === 'gzip') return packing.gzipLevel;
  return compression === 'zstd' ? packing.zstdLevel : null;
}
