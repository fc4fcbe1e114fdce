import { constants } from 'node:os';

/** Instructions and return values of classic BPF (linux/bpf_common.h, linux/seccomp.h). */
const LOAD = 0x20; // BPF_LD | BPF_W | BPF_ABS
const JUMP = 0x05; // BPF_JMP | BPF_JA
const JUMP_IF_EQUAL = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
const JUMP_IF_GREATER = 0x25; // BPF_JMP | BPF_JGT | BPF_K
const JUMP_IF_SET = 0x45; // BPF_JMP | BPF_JSET | BPF_K
const RETURN = 0x06; // BPF_RET | BPF_K
const ALLOW = 0x7fff0000;
const FAIL_WITH = 0x00050000;

/** Offsets in `struct seccomp_data`; of an argument only the low half is looked at, as all of ours are 32 bits wide. */
const NUMBER = 0;
const ARCHITECTURE = 4;
const FIRST_ARGUMENT = 16;

const CLONE_NEWUSER = 0x10000000;

/**
 * Address families that a shell may open sockets of: local ones, IPv4, IPv6 and netlink. The others are not held by a network namespace
 * (vsock reaches the hypervisor), see raw packets, or are rarely used and often broken kernel code.
 */
const ADDRESS_FAMILIES = [1, 2, 10, 16];

/** The newest system call that was looked at when this list was made (file_setattr, Linux 6.17); later ones do not exist for a shell. */
const NEWEST = 469;

/** Numbers by architecture; undefined where it lacks the call. */
interface SystemCall {
  x64?: number;
  x86?: number;
  arm64?: number;
}

/**
 * System calls that a shell never gets, on top of what its capabilities refuse: they change the whole machine, reach into the kernel's
 * memory or keyrings, or are not held by any namespace. It is the list that container runtimes deny, less what images need to be built.
 * `mount`, `pivot_root`, `setns` and `unshare` stay, for the sandbox is made under this filter; CAP_SYS_ADMIN decides on those.
 * Sources: asm/unistd_64.h, asm/unistd_32.h, asm-generic/unistd.h.
 */
const DENIED: Readonly<Record<string, SystemCall>> = {
  acct: { x64: 163, x86: 51, arm64: 89 },
  add_key: { x64: 248, x86: 286, arm64: 217 },
  bpf: { x64: 321, x86: 357, arm64: 280 },
  clock_adjtime: { x64: 305, x86: 343, arm64: 266 },
  clock_adjtime64: { x86: 405 },
  clock_settime: { x64: 227, x86: 264, arm64: 112 },
  clock_settime64: { x86: 404 },
  create_module: { x64: 174, x86: 127 },
  delete_module: { x64: 176, x86: 129, arm64: 106 },
  finit_module: { x64: 313, x86: 350, arm64: 273 },
  get_kernel_syms: { x64: 177, x86: 130 },
  init_module: { x64: 175, x86: 128, arm64: 105 },
  ioperm: { x64: 173, x86: 101 },
  iopl: { x64: 172, x86: 110 },
  io_uring_enter: { x64: 426, x86: 426, arm64: 426 },
  io_uring_register: { x64: 427, x86: 427, arm64: 427 },
  io_uring_setup: { x64: 425, x86: 425, arm64: 425 },
  kexec_file_load: { x64: 320, arm64: 294 },
  kexec_load: { x64: 246, x86: 283, arm64: 104 },
  keyctl: { x64: 250, x86: 288, arm64: 219 },
  lookup_dcookie: { x64: 212, x86: 253, arm64: 18 },
  migrate_pages: { x64: 256, x86: 294, arm64: 238 },
  move_pages: { x64: 279, x86: 317, arm64: 239 },
  nfsservctl: { x64: 180, x86: 169, arm64: 42 },
  open_by_handle_at: { x64: 304, x86: 342, arm64: 265 },
  perf_event_open: { x64: 298, x86: 336, arm64: 241 },
  query_module: { x64: 178, x86: 167 },
  quotactl: { x64: 179, x86: 131, arm64: 60 },
  quotactl_fd: { x64: 443, x86: 443, arm64: 443 },
  reboot: { x64: 169, x86: 88, arm64: 142 },
  request_key: { x64: 249, x86: 287, arm64: 218 },
  settimeofday: { x64: 164, x86: 79, arm64: 170 },
  // Calls of 32-bit programs that carry the address family in memory, where no filter can see it; `socket` is there as well.
  socketcall: { x86: 102 },
  stime: { x86: 25 },
  swapoff: { x64: 168, x86: 115, arm64: 225 },
  swapon: { x64: 167, x86: 87, arm64: 224 },
  _sysctl: { x64: 156, x86: 149 },
  syslog: { x64: 103, x86: 103, arm64: 116 },
  uselib: { x64: 134, x86: 86 },
  userfaultfd: { x64: 323, x86: 374, arm64: 282 },
  vhangup: { x64: 153, x86: 111, arm64: 58 },
  vm86: { x86: 166 },
  vm86old: { x86: 113 },
};

const CLONE: SystemCall = { x64: 56, x86: 120, arm64: 220 };
const CLONE3 = 435;
const SOCKET: SystemCall = { x64: 41, x86: 359, arm64: 198 };
const UNSHARE: SystemCall = { x64: 272, x86: 310, arm64: 97 };

/** Architectures as the kernel names them to a filter (linux/audit.h). */
const AUDIT_ARCH = { x64: 0xc000003e, x86: 0x40000003, arm64: 0xc00000b7 } as const;
type FilterArch = keyof typeof AUDIT_ARCH;

/** What runs on a machine: its own programs, and on x86_64 those of 32 bits. 32-bit ARM is left out; ARM servers cannot run it. */
const ARCHES_OF_MACHINE: Record<string, readonly FilterArch[]> = { x64: ['x64', 'x86'], arm64: ['arm64'] };

interface Instruction {
  code: number;
  /** Instructions to skip where the condition is true, and where it is false. */
  onTrue: number;
  onFalse: number;
  value: number;
}

function instruction(code: number, value: number, onTrue = 0, onFalse = 0): Instruction {
  return { code, value, onTrue, onFalse };
}

function fail(name: 'EPERM' | 'ENOSYS' | 'EAFNOSUPPORT'): Instruction {
  return instruction(RETURN, FAIL_WITH | constants.errno[name]);
}

function denyNumber(number: number, answer: Instruction): Instruction[] {
  return [instruction(JUMP_IF_EQUAL, number, 0, 1), answer];
}

/** Runs a check of the first argument for one system call; the check ends by an answer of its own. */
function onNumber(number: number, check: Instruction[]): Instruction[] {
  return [instruction(JUMP_IF_EQUAL, number, 0, check.length + 1), instruction(LOAD, FIRST_ARGUMENT), ...check];
}

function denyUserNamespace(number: number): Instruction[] {
  return onNumber(number, [instruction(JUMP_IF_SET, CLONE_NEWUSER, 0, 1), fail('EPERM'), instruction(RETURN, ALLOW)]);
}

function denyOtherSockets(number: number): Instruction[] {
  const families = ADDRESS_FAMILIES.map((family, index) =>
    instruction(JUMP_IF_EQUAL, family, ADDRESS_FAMILIES.length - index, 0),
  );
  return onNumber(number, [...families, fail('EAFNOSUPPORT'), instruction(RETURN, ALLOW)]);
}

/** The rules for programs of one architecture. */
function rulesOf(arch: FilterArch): Instruction[] {
  const denied = Object.values(DENIED).flatMap((call) =>
    call[arch] === undefined ? [] : denyNumber(call[arch], fail('EPERM')),
  );
  return [
    instruction(LOAD, NUMBER),
    // Also the calls of x32 programs, whose numbers begin at 2^30.
    instruction(JUMP_IF_GREATER, NEWEST, 0, 1),
    fail('ENOSYS'),
    ...denied,
    // Its flags lie in memory, where no filter can see them; C libraries fall back to clone.
    ...denyNumber(CLONE3, fail('ENOSYS')),
    ...denyUserNamespace(CLONE[arch]!),
    ...denyUserNamespace(UNSHARE[arch]!),
    ...denyOtherSockets(SOCKET[arch]!),
    instruction(RETURN, ALLOW),
  ];
}

function encode(program: Instruction[]): Buffer {
  const bytes = Buffer.alloc(program.length * 8);
  for (const [index, { code, onTrue, onFalse, value }] of program.entries()) {
    bytes.writeUInt16LE(code, index * 8);
    bytes.writeUInt8(onTrue, index * 8 + 2);
    bytes.writeUInt8(onFalse, index * 8 + 3);
    bytes.writeUInt32LE(value, index * 8 + 4);
  }
  return bytes;
}

/**
 * The system call filter of a shell, as an array of `struct sock_filter` for this kind of machine (a name of `os.arch()`). Denied calls fail
 * with EPERM, calls that are newer than this list with ENOSYS, as on an older kernel.
 * @throws Error for a kind of machine that has no filter
 */
export function systemCallFilter(machine: string): Buffer {
  const arches = ARCHES_OF_MACHINE[machine];
  if (!arches) throw new Error(`jobs run on x86_64 and aarch64 machines only; this one is ${machine}`);
  const sections = arches.flatMap((arch) => {
    const rules = rulesOf(arch);
    // A conditional jump reaches 255 instructions, which rules may exceed.
    return [instruction(JUMP_IF_EQUAL, AUDIT_ARCH[arch], 1, 0), instruction(JUMP, rules.length), ...rules];
  });
  return encode([instruction(LOAD, ARCHITECTURE), ...sections, fail('ENOSYS')]);
}
