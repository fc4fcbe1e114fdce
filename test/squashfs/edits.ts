import { execFileSync } from 'node:child_process';
import {
  chmodSync,
  ftruncateSync,
  lchownSync,
  linkSync,
  lutimesSync,
  mkdirSync,
  openSync,
  closeSync,
  constants,
  renameSync,
  rmSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { createHash } from 'node:crypto';
import path from 'node:path';
import fc from 'fast-check';

/** A change of a tree, as an administrator makes it. Paths are below the root. */
export type Edit =
  | { do: 'write' | 'append' | 'poke'; path: string; seed: number; size: number }
  | { do: 'mkdir' | 'remove' | 'replaceDirectory' | 'fifo'; path: string }
  | { do: 'rename' | 'link' | 'symlink' | 'copy'; path: string; other: string }
  | { do: 'chmod'; path: string; mode: number }
  | { do: 'chown'; path: string; uid: number; gid: number }
  | { do: 'touch'; path: string; time: number }
  | { do: 'truncate' | 'sparse'; path: string; size: number }
  | { do: 'device'; path: string; major: number; minor: number }
  | { do: 'xattr'; path: string; name: string; value: string };

const { O_APPEND, O_CREAT, O_NONBLOCK, O_TRUNC, O_WRONLY } = constants;
/** A pipe that nobody reads is an error then, and no reason to wait. */
const NEW = O_WRONLY | O_CREAT | O_NONBLOCK;

/** Few names, so that edits meet each other. */
const name = fc.constantFrom('a', 'b', 'c', 'dd', 'ünï ☃', "q'\\\n", 'x'.repeat(200));
const somewhere = fc.array(name, { minLength: 1, maxLength: 3 }).map((names) => names.join('/'));
/** Around the sizes at which the format does something else. */
const size = fc.oneof(
  fc.nat(100),
  fc.constantFrom(0, 1, 4095, 4096, 4097, 8192, 65_536, 131_071, 131_072, 131_073, 300_000),
  fc.nat(400_000),
);

export const edit: fc.Arbitrary<Edit> = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({
      do: fc.constantFrom('write' as const, 'append' as const, 'poke' as const),
      path: somewhere,
      seed: fc.nat(5),
      size,
    }),
  },
  {
    weight: 6,
    arbitrary: fc.record({
      do: fc.constantFrom(
        'mkdir' as const,
        'mkdir' as const,
        'remove' as const,
        'replaceDirectory' as const,
        'fifo' as const,
      ),
      path: somewhere,
    }),
  },
  {
    weight: 6,
    arbitrary: fc.record({
      do: fc.constantFrom('rename' as const, 'link' as const, 'symlink' as const, 'copy' as const),
      path: somewhere,
      other: somewhere,
    }),
  },
  fc.record({ do: fc.constant('chmod' as const), path: somewhere, mode: fc.constantFrom(0o644, 0o4755, 0o1777, 0) }),
  fc.record({
    do: fc.constant('chown' as const),
    path: somewhere,
    uid: fc.constantFrom(0, 7, 70_000, 4_000_000_000),
    gid: fc.constantFrom(0, 9, 70_001),
  }),
  fc.record({
    do: fc.constant('touch' as const),
    path: somewhere,
    time: fc.constantFrom(0, 1, 981_173_106, 4_000_000_000),
  }),
  fc.record({ do: fc.constantFrom('truncate' as const, 'sparse' as const), path: somewhere, size }),
  fc.record({
    do: fc.constant('device' as const),
    path: somewhere,
    major: fc.constantFrom(1, 259, 4095),
    minor: fc.constantFrom(0, 255, 256, 1_048_575),
  }),
  fc.record({
    do: fc.constant('xattr' as const),
    path: somewhere,
    name: fc.constantFrom('user.a', 'trusted.b', 'security.c'),
    value: fc.constantFrom('1', 'long '.repeat(100)),
  }),
);

/** Bytes that compress by about a half; equal for equal seeds. */
export function content(seed: number, length: number): Buffer {
  const words: Buffer[] = [];
  for (let at = 0; at < length; at += 64)
    words.push(createHash('sha256').update(`${seed} ${at}`).digest(), Buffer.alloc(32, seed));
  return Buffer.concat(words).subarray(0, length);
}

/** Makes an edit. One that is not possible there changes nothing. */
export function apply(root: string, change: Edit): void {
  try {
    perform(change, path.join(root, change.path), 'other' in change ? path.join(root, change.other) : '');
  } catch (error) {
    const { code, status } = error as { code?: string; status?: number };
    const isExpected =
      /^E(EXIST|NOENT|NOTDIR|ISDIR|NOTEMPTY|INVAL|LOOP|PERM|XDEV|NXIO|BUSY|NAMETOOLONG|SPIPE|RR_FS_\w+)$/.test(
        code ?? '',
      );
    if (!isExpected && !status) throw error;
  }
}

function perform(change: Edit, at: string, other: string): void {
  switch (change.do) {
    case 'write':
      return inFile(at, NEW | O_TRUNC, (fd) => writeFileSync(fd, content(change.seed, change.size)));
    case 'append':
      return inFile(at, NEW | O_APPEND, (fd) => writeFileSync(fd, content(change.seed, change.size)));
    case 'poke':
      return inFile(at, 'r+', (fd) => void writeSync(fd, 'poked', change.size));
    case 'truncate':
      return truncateSync(at, change.size);
    case 'sparse':
      return inFile(at, NEW, (fd) => {
        ftruncateSync(fd, change.size * 4);
        writeSync(fd, content(1, 5000), 0, 5000, change.size);
      });
    case 'mkdir':
      mkdirSync(at);
      return;
    case 'remove':
      return rmSync(at, { recursive: true });
    case 'replaceDirectory':
      rmSync(at, { recursive: true });
      mkdirSync(at);
      return;
    case 'rename':
      return renameSync(at, other);
    case 'link':
      return linkSync(at, other);
    case 'symlink':
      return symlinkSync(change.other, at);
    case 'chmod':
      return chmodSync(at, change.mode);
    case 'chown':
      return lchownSync(at, change.uid, change.gid);
    case 'touch':
      return lutimesSync(at, change.time, change.time);
    default:
      return performCommand(change, at, other);
  }
}

function performCommand(change: Edit, at: string, other: string): void {
  const run = (command: string, ...args: string[]) => void execFileSync(command, args, { stdio: 'ignore' });
  if (change.do === 'copy') run('cp', '-a', '-T', at, other);
  if (change.do === 'fifo') run('mkfifo', at);
  if (change.do === 'device') run('mknod', at, 'c', String(change.major), String(change.minor));
  if (change.do === 'xattr') run('setfattr', '-h', '-n', change.name, '-v', change.value, at);
}

function inFile(at: string, flags: string | number, use: (fd: number) => void): void {
  const fd = openSync(at, flags);
  try {
    use(fd);
  } finally {
    closeSync(fd);
  }
}
