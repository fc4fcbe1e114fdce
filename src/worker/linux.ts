import { closeSync, constants as fsConstants, fstatSync, openSync, type Stats } from 'node:fs';
import { constants as osConstants } from 'node:os';
import { getSystemErrorMap, getSystemErrorName } from 'node:util';
import koffi from 'koffi';

/**
 * The few system calls that Node lacks. All of them but `copyFileRange` run on the calling thread and return at once. What they change of a thread (file system
 * ids, network namespace) they change for a synchronous action only, so that nothing else ever runs under it.
 */
const libc = koffi.load(null);

const libcMount = libc.func('mount', 'int', ['str', 'str', 'str', 'ulong', 'str']);
const libcUmount = libc.func('umount2', 'int', ['str', 'int']);
const libcSetns = libc.func('setns', 'int', ['int', 'int']);
/** `struct sock_fprog` (linux/filter.h). */
const FilterProgram = koffi.struct({ len: 'uint16', filter: 'void *' });
/** `prctl(2)` takes what each option needs; these are the shapes in use. */
const libcPrctl = libc.func('prctl', 'int', ['int', 'ulong', koffi.pointer(FilterProgram), 'ulong', 'ulong']);
const libcPrctlPointer = libc.func('prctl', 'int', ['int', 'void *', 'ulong', 'ulong', 'ulong']);
const libcPrctlNumber = libc.func('prctl', 'int', ['int', 'ulong', 'ulong', 'ulong', 'ulong']);
const libcSocket = libc.func('socket', 'int', ['int', 'int', 'int']);
const libcIoctl = libc.func('ioctl', 'int', ['int', 'ulong', 'void *']);
const libcMknod = libc.func('mknod', 'int', ['void *', 'uint', 'ulong']);
const libcCopyFileRange = libc.func('copy_file_range', 'long', ['int', 'void *', 'int', 'void *', 'ulong', 'uint']);
const libcUtimensat = libc.func('utimensat', 'int', ['int', 'void *', 'void *', 'int']);
const libcSetfsuid = libc.func('setfsuid', 'int', ['uint']);
const libcSetfsgid = libc.func('setfsgid', 'int', ['uint']);
const libcListxattr = libc.func('llistxattr', 'long', ['void *', 'void *', 'ulong']);
const libcGetxattr = libc.func('lgetxattr', 'long', ['void *', 'void *', 'void *', 'ulong']);
const libcSetxattr = libc.func('lsetxattr', 'int', ['void *', 'void *', 'void *', 'ulong', 'int']);
/** `syscall(2)` takes what each number needs; these are the shapes in use. */
const syscall = {
  openTree: libc.func('syscall', 'long', ['long', 'int', 'str', 'uint']),
  mountSetattr: libc.func('syscall', 'long', ['long', 'int', 'str', 'uint', 'void *', 'ulong']),
  moveMount: libc.func('syscall', 'long', ['long', 'int', 'str', 'int', 'str', 'uint']),
  openat2: libc.func('syscall', 'long', ['long', 'int', 'void *', 'void *', 'ulong']),
  capabilities: libc.func('syscall', 'long', ['long', 'void *', 'void *']),
};

/** Numbers that are the same on all architectures (all calls since Linux 5.1). */
const NUMBER = { openTree: 428, moveMount: 429, openat2: 437, mountSetattr: 442 };
/** Older calls, by `process.arch`. */
const CAPABILITY_NUMBERS: Record<string, { get: number; set: number }> = {
  x64: { get: 125, set: 126 },
  arm64: { get: 90, set: 91 },
};

/** Flags of open(2) that Node does not name; the same on x86_64 and aarch64. */
const O_CLOEXEC = 0o2000000;
const O_PATH = 0o10000000;

const AT_FDCWD = -100;
const AT_EMPTY_PATH = 0x1000;

/** A system call failed. `code` is the name of its errno. */
export class SystemCallFailed extends Error {
  readonly code: string;

  constructor(what: string, errno: number) {
    const [code, text] = getSystemErrorMap().get(-errno) ?? [getSystemErrorName(-errno), 'unknown error'];
    super(`cannot ${what}: ${text} (${code})`);
    this.name = 'SystemCallFailed';
    this.code = code;
  }
}

/** The result of a call, or the error that it left in errno; `what` completes "cannot …". */
function check(result: number, what: string): number {
  if (result < 0) throw new SystemCallFailed(what, koffi.errno());
  return result;
}

/** Flags of mount(2). */
export const MOUNT = {
  readOnly: 1,
  noSuid: 2,
  noDev: 4,
  noExec: 8,
  remount: 32,
  bind: 4096,
  recursive: 16_384,
} as const;

/** mount(2). `data` is in the file system's own syntax; for binds `type` is ignored. */
export function mount(source: string, target: string, type: string, flags: number, data = ''): void {
  check(libcMount(source, target, type, flags, data), `mount ${type} on ${target}`);
}

/** umount(2) of the topmost mount of this path. A path that ends in a symlink is not followed. */
export function unmount(target: string): void {
  const UMOUNT_NOFOLLOW = 8;
  check(libcUmount(target, UMOUNT_NOFOLLOW), `unmount ${target}`);
}

/**
 * Mounts what is seen at `source` on `target` with the owners of files mapped as in a user namespace: id 0 on disk is the id of its root.
 * Device nodes do not work there. Not for overlays, which no kernel maps.
 */
export function mountIdmapped(source: string, target: string, userNamespace: number): void {
  const OPEN_TREE_CLONE = 1;
  const MOVE_MOUNT_F_EMPTY_PATH = 4;
  const what = `map the owners of ${source}`;
  const tree = check(syscall.openTree(NUMBER.openTree, AT_FDCWD, source, OPEN_TREE_CLONE | O_CLOEXEC), what);
  try {
    const attributes = idmapAttributes(userNamespace);
    check(syscall.mountSetattr(NUMBER.mountSetattr, tree, '', AT_EMPTY_PATH, attributes, attributes.length), what);
    check(syscall.moveMount(NUMBER.moveMount, tree, '', AT_FDCWD, target, MOVE_MOUNT_F_EMPTY_PATH), what);
  } finally {
    closeSync(tree);
  }
}

/** `struct mount_attr` (linux/mount.h). */
function idmapAttributes(userNamespace: number): Buffer {
  const MOUNT_ATTR_IDMAP = 0x00100000;
  const MOUNT_ATTR_NODEV = 4;
  const attributes = Buffer.alloc(32);
  attributes.writeBigUInt64LE(BigInt(MOUNT_ATTR_IDMAP | MOUNT_ATTR_NODEV), 0);
  attributes.writeBigUInt64LE(BigInt(userNamespace), 24);
  return attributes;
}

/**
 * Does an action whose files belong to the user and group `id`, with all capabilities that this process has. The action must be synchronous,
 * and must use the `…Sync` functions of node:fs: others run on threads that keep their own ids.
 */
export function withFileSystemIds<Result>(id: number, action: () => Result): Result {
  const before = effectiveCapabilities();
  const deathSignal = parentDeathSignal();
  try {
    libcSetfsgid(id);
    libcSetfsuid(id);
    // Leaving user 0 took the capabilities that concern files; files of other owners need them.
    setEffectiveCapabilities(before);
    return action();
  } finally {
    libcSetfsuid(0);
    libcSetfsgid(0);
    setEffectiveCapabilities(before);
    // The kernel forgets it whenever these ids change, and a worker must not outlive its server.
    setParentDeathSignal(deathSignal);
  }
}

/** The signal that this thread gets when its parent dies; 0 for none. */
function parentDeathSignal(): number {
  const PR_GET_PDEATHSIG = 2;
  const signal = Buffer.alloc(4);
  check(libcPrctlPointer(PR_GET_PDEATHSIG, signal, 0, 0, 0), 'read the signal of the death of the parent');
  return signal.readInt32LE();
}

function setParentDeathSignal(signal: number): void {
  const PR_SET_PDEATHSIG = 1;
  check(libcPrctlNumber(PR_SET_PDEATHSIG, signal, 0, 0, 0), 'set the signal of the death of the parent');
}

/** `struct __user_cap_header_struct`, version 3, for the calling thread. */
function capabilityHeader(): Buffer {
  const header = Buffer.alloc(8);
  header.writeUInt32LE(0x20080522, 0);
  return header;
}

/** The capability sets of this thread, as `struct __user_cap_data_struct[2]`. */
function effectiveCapabilities(): Buffer {
  const data = Buffer.alloc(24);
  check(syscall.capabilities(capabilityNumbers().get, capabilityHeader(), data), 'read the capabilities');
  return data;
}

function setEffectiveCapabilities(data: Buffer): void {
  check(syscall.capabilities(capabilityNumbers().set, capabilityHeader(), data), 'set the capabilities');
}

function capabilityNumbers(): { get: number; set: number } {
  const numbers = CAPABILITY_NUMBERS[process.arch];
  if (!numbers) throw new Error(`jobs run on x86_64 and aarch64 machines only; this one is ${process.arch}`);
  return numbers;
}

/** The number of a loop device that nobody uses (loop(4)). `control` is open on /dev/loop-control. */
export function freeLoopDevice(control: number): number {
  const LOOP_CTL_GET_FREE = 0x4c82;
  return check(libcIoctl(control, LOOP_CTL_GET_FREE, null), 'find a free loop device');
}

/** Makes a block device node, for root only. */
export function makeBlockDevice(path: string, major: number, minor: number): void {
  makeNode(Buffer.from(path), 'block device', major, minor);
}

const NODE_TYPES = {
  'block device': fsConstants.S_IFBLK,
  'character device': fsConstants.S_IFCHR,
  fifo: fsConstants.S_IFIFO,
} as const;

/**
 * Makes a device or a fifo, for its owner only (mknod(2), makedev(3)).
 * @param major below 4096
 * @param minor below 2 ** 20
 */
export function makeNode(path: Buffer, type: keyof typeof NODE_TYPES, major = 0, minor = 0): void {
  const device = (BigInt(minor & ~0xff) << 12n) | BigInt(major << 8) | BigInt(minor & 0xff);
  check(libcMknod(cString(path), NODE_TYPES[type] | 0o600, device), `make the ${type} ${path.toString()}`);
}

/**
 * Sets when a file was changed and used last; a symlink is not followed (utimensat(2)).
 * @param time nanoseconds since 1970
 */
export function setTimes(path: Buffer, time: bigint): void {
  const AT_SYMLINK_NOFOLLOW = 0x100;
  const BILLION = 1_000_000_000n;
  // The remainder of times before 1970 is below zero, which the kernel does not take.
  const nanoseconds = ((time % BILLION) + BILLION) % BILLION;
  const spec = [(time - nanoseconds) / BILLION, nanoseconds];
  const times = Buffer.from(BigInt64Array.from([...spec, ...spec]).buffer);
  check(libcUtimensat(AT_FDCWD, cString(path), times, AT_SYMLINK_NOFOLLOW), `set the times of ${path.toString()}`);
}

/**
 * Copies bytes from one file to another within the kernel, on another thread (copy_file_range(2)).
 * @returns how many: fewer than asked for where it was interrupted or the source ended; null where these files cannot be copied so
 */
export async function copyFileRange(
  from: { fd: number; position: number },
  to: { fd: number; position: number },
  length: number,
): Promise<number | null> {
  const offsets = [from, to].map(({ position }) => Buffer.from(BigInt64Array.of(BigInt(position)).buffer));
  const copied = await new Promise<unknown>((resolve, reject) => {
    const done = (error: unknown, result: unknown) => (error ? reject(error as Error) : resolve(result));
    libcCopyFileRange.async(from.fd, offsets[0], to.fd, offsets[1], length, 0, done);
  });
  return Number(copied) < 0 ? null : Number(copied);
}

/** Something that was opened below a root. Its content is reached by `path`, whatever becomes of the name under which it was found. */
export class OpenPath {
  constructor(private readonly fd: number) {}

  /** Works for this process and, as long as it has not ended, for commands that it starts. */
  get path(): string {
    return `/proc/${process.pid}/fd/${this.fd}`;
  }

  stat(): Stats {
    return fstatSync(this.fd);
  }

  close(): void {
    closeSync(this.fd);
  }
}

/**
 * Opens a file or directory below `root`, with every link on the way taken as seen from `root`: also while somebody changes the path,
 * nothing outside of `root` is ever opened. It is opened as a place only (O_PATH): nothing is read, no device is touched.
 * @throws SystemCallFailed with ENOENT, ENOTDIR or ELOOP where it is not there, or is no directory where one was asked for
 */
export function openIn(root: string, path: string, kind: 'any' | 'directory'): OpenPath {
  return openResolved(root, path, kind, RESOLVE.noMagicLinks | RESOLVE.inRoot);
}

/**
 * Opens a file or directory below `root`, which no link on the way may leave: an absolute one leaves it always.
 * @param path in bytes where names need not be UTF-8
 * @param links `refuse` where there must be no link at all, the last part of the path included
 * @throws SystemCallFailed with EXDEV where a link leads out; ELOOP where there is one and none may be; ENOENT, ENOTDIR
 */
export function openBeneath(
  root: string,
  path: string | Buffer,
  kind: 'any' | 'directory',
  links: 'follow' | 'refuse',
): OpenPath {
  const resolve = RESOLVE.noMagicLinks | RESOLVE.beneath | (links === 'refuse' ? RESOLVE.noSymlinks : 0n);
  return openResolved(root, path, kind, resolve);
}

/** How openat2(2) takes a path. */
const RESOLVE = { noMagicLinks: 0x02n, noSymlinks: 0x04n, beneath: 0x08n, inRoot: 0x10n };

function openResolved(root: string, path: string | Buffer, kind: 'any' | 'directory', resolve: bigint): OpenPath {
  const how = Buffer.alloc(24);
  how.writeBigUInt64LE(BigInt(O_PATH | O_CLOEXEC | (kind === 'directory' ? fsConstants.O_DIRECTORY : 0)), 0);
  how.writeBigUInt64LE(resolve, 16);
  const base = openSync(root, O_PATH | fsConstants.O_DIRECTORY);
  try {
    const what = `open ${path.toString()} below its root`;
    return new OpenPath(
      check(syscall.openat2(NUMBER.openat2, base, cString(Buffer.from(path)), how, how.length), what),
    );
  } finally {
    closeSync(base);
  }
}

/** As `openIn`; null where there is nothing of the kind. */
export function findIn(root: string, path: string, kind: 'any' | 'directory'): OpenPath | null {
  try {
    return openIn(root, path, kind);
  } catch (error) {
    if (error instanceof SystemCallFailed && ['ENOENT', 'ENOTDIR', 'ELOOP'].includes(error.code)) return null;
    throw error;
  }
}

/** Does a synchronous action in another network namespace: sockets that it opens and `/proc/sys/net` belong to that one. */
export function inNetworkNamespace<Result>(namespace: number, action: () => Result): Result {
  const CLONE_NEWNET = 0x40000000;
  const own = openSync('/proc/thread-self/ns/net', 'r');
  try {
    check(libcSetns(namespace, CLONE_NEWNET), 'enter the network namespace of the shell');
    try {
      return action();
    } finally {
      check(libcSetns(own, CLONE_NEWNET), 'leave the network namespace of the shell');
    }
  } finally {
    closeSync(own);
  }
}

/** Adds a route to the network namespace of this thread; `entry` is a `struct rtentry` (net/route.h). */
export function addRoute(entry: Buffer): void {
  const AF_INET = 2;
  const SOCK_DGRAM = 2;
  const SIOCADDRT = 0x890b;
  const socket = check(libcSocket(AF_INET, SOCK_DGRAM | O_CLOEXEC, 0), 'open a socket');
  try {
    check(libcIoctl(socket, SIOCADDRT, entry), 'add a route');
  } finally {
    closeSync(socket);
  }
}

/**
 * Puts this thread, and all that it starts from now on, under a filter of system calls for good; `program` is an array of
 * `struct sock_filter`. Needs CAP_SYS_ADMIN, since programs that gain rights (su, sudo) must still work under it.
 */
export function installSystemCallFilter(program: Buffer): void {
  const PR_SET_SECCOMP = 22;
  const SECCOMP_MODE_FILTER = 2;
  const description = { len: program.length / 8, filter: program };
  check(libcPrctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, description, 0, 0), 'install the system call filter');
}

/** Copies extended attributes, by their names, from one file to another. Neither path is followed where it is a symlink. */
export function copyExtendedAttributes(from: string, to: string, isWanted: (name: string) => boolean): void {
  for (const { name, value } of extendedAttributes(Buffer.from(from)))
    if (isWanted(name)) setExtendedAttribute(Buffer.from(to), name, value);
}

/**
 * Sets an extended attribute. A symlink is not followed.
 * @param name a byte per character (latin1)
 * @throws SystemCallFailed with EPERM where this process may not, EOPNOTSUPP where the file cannot have it
 */
export function setExtendedAttribute(path: Buffer, name: string, value: Buffer): void {
  const done = libcSetxattr(cString(path), cString(Buffer.from(name, 'latin1')), value, value.length, 0);
  check(done, `set the attribute ${name} of ${path.toString()}`);
}

/** Most bytes of a value, and of the names of a file, that Linux takes (linux/limits.h). */
const XATTR_LIMIT = 65_536;
/** Filled by one call and read at once. */
const xattrBuffer = Buffer.alloc(XATTR_LIMIT);

/**
 * The extended attributes of a file, in the order of the file system. A symlink is not followed. Names are a byte per character (latin1).
 * @param path in bytes, since names of files need not be UTF-8
 */
export function extendedAttributes(path: Buffer): { name: string; value: Buffer }[] {
  const file = cString(path);
  const size = libcListxattr(file, xattrBuffer, XATTR_LIMIT);
  if (size === 0 || (size < 0 && koffi.errno() === osConstants.errno.EOPNOTSUPP)) return [];
  check(size, `list the attributes of ${path.toString()}`);
  const names = xattrBuffer.toString('latin1', 0, size).split('\0').slice(0, -1);
  return names.map((name) => ({ name, value: extendedAttribute(file, name) }));
}

function extendedAttribute(file: Buffer, name: string): Buffer {
  const size = libcGetxattr(file, cString(Buffer.from(name, 'latin1')), xattrBuffer, XATTR_LIMIT);
  return Buffer.from(
    xattrBuffer.subarray(0, check(size, `read an attribute of ${file.toString('utf8', 0, file.length - 1)}`)),
  );
}

/** Bytes as C takes a text. */
function cString(text: Buffer): Buffer {
  return Buffer.concat([text, Buffer.alloc(1)]);
}
