import { open } from 'node:fs/promises';
import type { Compression } from '../../protocol/job-spec.js';
import { encodeCompressorOptions } from './compressor-options.js';
import { readDiskTree } from './disk-tree.js';
import { ImageWriter, type PackingResources } from './image-writer.js';
import { loadCodec } from './load-codec.js';
import type { ImageReport } from './pack-report.js';
import { Stopwatch } from './stopwatch.js';
import { FLAG } from './superblock.js';
import { leaves, type NewContent, type TreeDirectory, type TreeFile } from './tree.js';

/** How an image is to be packed. */
export interface PackingTarget {
  compression: Compression;
  /** Null for the default of the compression. */
  level: number | null;
  /** Bytes of a data block. */
  blockSize: number;
}

export interface FullOptions extends PackingResources {
  /** Path of the directory that becomes the root. Nobody may change anything in it meanwhile. */
  root: string;
  /** Where the root is an overlay, its lower layer; null otherwise. */
  pristine: string | null;
  target: PackingTarget;
  /** Path of the new image; it must not exist, or be empty. Where the work ends early, what is written of it stays. */
  output: string;
  /** Ends the work. */
  signal: AbortSignal;
}

/**
 * Packs a directory into a new SquashFS image: every file is read and compressed, those with the same content once. A file that cannot be
 * read ends the work.
 *
 * The output is written strictly forward, and the superblock, which makes it an image, last. The same tree gives the same bytes.
 * @throws CodecMissing, SquashfsLimit, FileChanged; errors of the system; the reason of the signal
 */
export async function packFull({
  root: path,
  pristine,
  target,
  output,
  ...resources
}: FullOptions): Promise<ImageReport> {
  const { compression, level, blockSize } = target;
  const compressorOptions = encodeCompressorOptions(compression, level);
  const codec = loadCodec(compression, { level, blockSize, imageOptions: compressorOptions });
  const stopwatch = new Stopwatch();
  const { root, droppedXattrs } = await stopwatch.time('tables', async () => readDiskTree(path, pristine));
  const file = await open(output, 'w');
  try {
    const format = { blockSize, compressorOptions, flags: FLAG.duplicates };
    const writer = new ImageWriter({ output: file, codec, format, twinBlocks: () => null, ...resources });
    const fragments = await stopwatch.time('compress', async () => storeFiles(writer, root));
    const sizes = await stopwatch.time('metadata', () =>
      writer.finish(root, (node) => contentOf(node).stored!, fragments),
    );
    const { newFiles, data } = writer;
    return {
      ...sizes,
      reusedBytes: 0,
      newBytes: data.bytesCompressed,
      newFiles,
      droppedXattrs,
      seconds: stopwatch.seconds,
    };
  } finally {
    await file.close();
  }
}

/** Writes the contents of all files of a tree. Returns the fragment table. */
async function storeFiles(writer: ImageWriter, root: TreeDirectory): Promise<Buffer> {
  await writer.begin();
  const files = [...leaves(root)].filter((node) => node.kind === 'file');
  await writer.storeAll(files.map(contentOf));
  return writer.data.finish();
}

/** A tree of the machine has nothing of a source. */
function contentOf({ content }: TreeFile): NewContent {
  return content as NewContent;
}
