import koffi, { type KoffiFunc } from 'koffi';
import type { Compression } from '../../protocol/job-spec.js';
import { BadSquashfs } from './bad-squashfs.js';
import type { Codec, CodecOptions } from './codec.js';
import { METADATA_SIZE } from './metadata-reader.js';

/** A library that a compression needs is not on this machine. */
export class CodecMissing extends Error {
  constructor(library: string, options?: ErrorOptions) {
    super(`${library} cannot be loaded; it comes with squashfs-tools`, options);
    this.name = 'CodecMissing';
  }
}

/** One call of a library: it fills `target` from `source`. */
interface Call {
  run: KoffiFunc<(...args: unknown[]) => unknown>;
  args: unknown[];
  /** Bytes in the target, of what the call returned; null where it failed or had no room. */
  length(returned: unknown): number | null;
  /** Gives back what the call worked with. */
  release?(): void;
}

/** How a library compresses and decompresses one block. */
interface Library {
  compress(source: Buffer, target: Buffer): Call;
  decompress(source: Buffer, target: Buffer): Call;
}

/** @throws CodecMissing */
export function loadNativeCodec(compression: Exclude<Compression, 'gzip'>, options: CodecOptions): Codec {
  return new NativeCodec(compression, LIBRARIES[compression](options), Math.max(options.blockSize, METADATA_SIZE));
}

const LIBRARIES = { zstd: loadZstd, xz: loadXz, lz4: loadLz4, lzo: loadLzo };

class NativeCodec implements Codec {
  /** What blocks are compressed into: as memory that was used before, it is there at once. */
  private readonly rooms: Pool<Buffer>;

  constructor(
    readonly compression: Compression,
    private readonly library: Library,
    blockSize: number,
  ) {
    this.rooms = new Pool(() => Buffer.allocUnsafe(blockSize));
  }

  compress(content: Buffer): Buffer | null {
    const room = this.rooms.take();
    const target = roomFor(content, room);
    const length = runNow(this.library.compress(content, target));
    return this.takeOut(room, length);
  }

  async compressInBackground(content: Buffer): Promise<Buffer | null> {
    const room = this.rooms.take();
    const target = roomFor(content, room);
    const length = await runInBackground(this.library.compress(content, target));
    return this.takeOut(room, length);
  }

  decompress(block: Buffer, limit: number): Buffer {
    const target = Buffer.allocUnsafe(limit);
    return decompressed(filled(target, runNow(this.library.decompress(block, target))));
  }

  async decompressInBackground(block: Buffer, limit: number): Promise<Buffer> {
    const target = Buffer.allocUnsafe(limit);
    return decompressed(filled(target, await runInBackground(this.library.decompress(block, target))));
  }

  /** A copy of what was compressed, and no longer than it. */
  private takeOut(room: Buffer, length: number | null): Buffer | null {
    const compressed = length === null ? null : Buffer.from(room.subarray(0, length));
    this.rooms.give(room);
    return compressed;
  }
}

/** What does not fit into a byte less than the content is stored as it is. */
function roomFor(content: Buffer, room: Buffer): Buffer {
  return room.subarray(0, Math.max(content.length - 1, 1));
}

function filled(target: Buffer, length: number | null): Buffer | null {
  return length === null ? null : target.subarray(0, length);
}

function decompressed(content: Buffer | null): Buffer {
  if (content === null) throw new BadSquashfs('a block of it cannot be decompressed');
  return content;
}

function runNow(call: Call): number | null {
  try {
    return call.length(call.run(...call.args));
  } finally {
    call.release?.();
  }
}

/** The arguments stay referenced by the call, so that no buffer goes while a thread works on it. */
async function runInBackground(call: Call): Promise<number | null> {
  try {
    return await new Promise((resolve, reject) => {
      const done = (error: unknown, returned: unknown) =>
        error ? reject(error as Error) : resolve(call.length(returned));
      call.run.async(...call.args, done);
    });
  } finally {
    call.release?.();
  }
}

function load(library: string) {
  try {
    return koffi.load(library);
  } catch (error) {
    throw new CodecMissing(library, { cause: error });
  }
}

/** Things that a call works with, of which each call in flight needs one of its own. */
class Pool<Thing> {
  private readonly free: Thing[] = [];

  constructor(private readonly make: () => Thing) {}

  take(): Thing {
    return this.free.pop() ?? this.make();
  }

  give(thing: Thing): void {
    this.free.push(thing);
  }
}

/** zstd.h. mksquashfs compresses by level 15 where nobody says otherwise. */
function loadZstd({ level }: CodecOptions): Library {
  const zstd = load('libzstd.so.1');
  const run = {
    compress: zstd.func('ZSTD_compressCCtx', 'size_t', ['void *', 'void *', 'size_t', 'void *', 'size_t', 'int']),
    decompress: zstd.func('ZSTD_decompress', 'size_t', ['void *', 'size_t', 'void *', 'size_t']),
  };
  const createContext = zstd.func('ZSTD_createCCtx', 'void *', []);
  const contexts = new Pool<unknown>(() => createContext());
  return {
    compress(source, target) {
      const context = contexts.take();
      const args = [context, target, target.length, source, source.length, level ?? 15];
      return {
        run: run.compress,
        args,
        length: (size) => sizeWithin(target, size),
        release: () => contexts.give(context),
      };
    },
    decompress: (source, target) => ({
      run: run.decompress,
      args: [target, target.length, source, source.length],
      length: (size) => sizeWithin(target, size),
    }),
  };
}

/** Errors come as numbers that are larger than any buffer. */
function sizeWithin(target: Buffer, size: unknown): number | null {
  return typeof size === 'number' && size > 0 && size <= target.length ? size : null;
}

/** A `size_t` that a call reads and writes. */
function sizeArgument(value: number): Buffer {
  const size = Buffer.alloc(8);
  size.writeBigUInt64LE(BigInt(value));
  return size;
}

/** lzma/container.h. The kernel takes CRC32 as the only check, and dictionaries that its options announce. */
function loadXz({ blockSize, imageOptions }: CodecOptions): Library {
  const LZMA_FILTER_LZMA2 = 0x21;
  const LZMA_VLI_UNKNOWN = 0xffff_ffff_ffff_ffffn;
  const LZMA_CHECK_CRC32 = 1;
  const MEMORY_LIMIT = 128 * 1024 * 1024;
  const lzma = load('liblzma.so.5');
  const Filter = koffi.struct({ id: 'uint64', options: 'void *' });
  const encodeArguments = [koffi.pointer(Filter), 'int', 'void *', 'void *', 'size_t', 'void *', 'void *', 'size_t'];
  const decodeArguments = ['void *', 'uint32', 'void *', 'void *', 'void *', 'size_t', 'void *', 'void *', 'size_t'];
  const encode = lzma.func('lzma_stream_buffer_encode', 'int', encodeArguments);
  const decode = lzma.func('lzma_stream_buffer_decode', 'int', decodeArguments);
  const dictionary = imageOptions.length >= 4 ? imageOptions.readUInt32LE(0) : blockSize;
  const filters = [
    { id: LZMA_FILTER_LZMA2, options: lzmaOptions(lzma, dictionary) },
    { id: LZMA_VLI_UNKNOWN, options: null },
  ];
  return {
    compress(source, target) {
      const length = sizeArgument(0);
      const args = [filters, LZMA_CHECK_CRC32, null, source, source.length, target, length, target.length];
      return { run: encode, args, length: (code) => lengthIfOk(code, length) };
    },
    decompress(source, target) {
      const length = sizeArgument(0);
      const input = [source, sizeArgument(0), source.length];
      const args = [sizeArgument(MEMORY_LIMIT), 0, null, ...input, target, length, target.length];
      return { run: decode, args, length: (code) => lengthIfOk(code, length) };
    },
  };
}

function lengthIfOk(code: unknown, length: Buffer): number | null {
  return code === 0 ? Number(length.readBigUInt64LE()) : null;
}

/** A `lzma_options_lzma` of the default preset; its first member is the size of the dictionary. */
function lzmaOptions(lzma: ReturnType<typeof koffi.load>, dictionary: number): Buffer {
  const DEFAULT_PRESET = 6;
  const SIZE = 256;
  const options = Buffer.alloc(SIZE);
  if (lzma.func('lzma_lzma_preset', 'bool', ['void *', 'uint32'])(options, DEFAULT_PRESET))
    throw new CodecMissing('liblzma.so.5');
  options.writeUInt32LE(dictionary);
  return options;
}

/** lz4.h and lz4hc.h. */
function loadLz4({ imageOptions }: CodecOptions): Library {
  const HIGH_COMPRESSION = 1;
  const HIGHEST_LEVEL = 12;
  const lz4 = load('liblz4.so.1');
  const isHigh = imageOptions.length >= 8 && (imageOptions.readUInt32LE(4) & HIGH_COMPRESSION) !== 0;
  const compress = isHigh
    ? lz4.func('LZ4_compress_HC', 'int', ['void *', 'void *', 'int', 'int', 'int'])
    : lz4.func('LZ4_compress_default', 'int', ['void *', 'void *', 'int', 'int']);
  const decompress = lz4.func('LZ4_decompress_safe', 'int', ['void *', 'void *', 'int', 'int']);
  const args = (source: Buffer, target: Buffer) => [source, target, source.length, target.length];
  return {
    compress: (source, target) => ({
      run: compress,
      args: [...args(source, target), ...(isHigh ? [HIGHEST_LEVEL] : [])],
      length: (size) => sizeWithin(target, size),
    }),
    decompress: (source, target) => ({
      run: decompress,
      args: args(source, target),
      length: (size) => sizeWithin(target, size),
    }),
  };
}

/** lzo/lzo1x.h. The compressor does not look at the room it has, and needs up to a sixteenth more than the content and 67 bytes. */
function loadLzo({ imageOptions, blockSize }: CodecOptions): Library {
  const WORK_MEMORY = 14 * 16_384 * 2;
  const DEFAULT_LEVEL = 8;
  const lzo = load('liblzo2.so.2');
  const compressArguments = ['void *', 'size_t', 'void *', 'void *', 'void *', 'void *', 'size_t', 'void *', 'int'];
  const compress = lzo.func('lzo1x_999_compress_level', 'int', compressArguments);
  const decompress = lzo.func('lzo1x_decompress_safe', 'int', ['void *', 'size_t', 'void *', 'void *', 'void *']);
  const level = imageOptions.length >= 8 ? imageOptions.readUInt32LE(4) || DEFAULT_LEVEL : DEFAULT_LEVEL;
  const workspaces = new Pool(() => ({
    memory: Buffer.allocUnsafe(WORK_MEMORY),
    output: Buffer.allocUnsafe(blockSize + Math.ceil(blockSize / 16) + 67),
  }));
  return {
    compress(source, target) {
      const workspace = workspaces.take();
      const size = sizeArgument(0);
      return {
        run: compress,
        args: [source, source.length, workspace.output, size, workspace.memory, null, 0, null, level],
        length: (code) => copyIfFits(workspace.output, lengthIfOk(code, size), target),
        release: () => workspaces.give(workspace),
      };
    },
    decompress(source, target) {
      const size = sizeArgument(target.length);
      const args = [source, source.length, target, size, null];
      return { run: decompress, args, length: (code) => lengthIfOk(code, size) };
    },
  };
}

function copyIfFits(output: Buffer, length: number | null, target: Buffer): number | null {
  if (length === null || length > target.length) return null;
  output.copy(target, 0, 0, length);
  return length;
}
