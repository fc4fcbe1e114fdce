import { constants } from 'node:os';
import { systemCallFilter } from './seccomp.js';

const X64 = 0xc000003e;
const X86 = 0x40000003;
const ARM64 = 0xc00000b7;

/** A system call, as the kernel shows it to a filter. */
interface Call {
  arch: number;
  number: number;
  first?: number;
}

/** What a filter answers, computed as the kernel does (Documentation/networking/filter.rst). */
function answer(filter: Buffer, { arch, number, first = 0 }: Call): string {
  const data = Buffer.alloc(64);
  data.writeUInt32LE(number, 0);
  data.writeUInt32LE(arch, 4);
  data.writeUInt32LE(first, 16);
  let accumulator = 0;
  for (let at = 0; at < filter.length / 8; at++) {
    const value = filter.readUInt32LE(at * 8 + 4);
    const jump = (condition: boolean) => (at += filter.readUInt8(at * 8 + (condition ? 2 : 3)));
    switch (filter.readUInt16LE(at * 8)) {
      case 0x20:
        accumulator = data.readUInt32LE(value);
        break;
      case 0x05:
        at += value;
        break;
      case 0x15:
        jump(accumulator === value);
        break;
      case 0x25:
        jump(accumulator > value);
        break;
      case 0x45:
        jump((accumulator & value) !== 0);
        break;
      case 0x06:
        return value === 0x7fff0000 ? 'allowed' : errnoName(value & 0xffff);
      default:
        throw new Error(`unknown instruction at ${at}`);
    }
  }
  throw new Error('the filter has no end');
}

function errnoName(value: number): string {
  return Object.entries(constants.errno).find(([, number]) => number === value)![0];
}

describe('systemCallFilter', () => {
  const x64 = systemCallFilter('x64');
  const arm64 = systemCallFilter('arm64');

  it.each([
    ['read', { arch: X64, number: 0 }],
    ['ptrace', { arch: X64, number: 101 }],
    ['chroot', { arch: X64, number: 161 }],
    ['mount', { arch: X64, number: 165 }],
    ['pivot_root', { arch: X64, number: 155 }],
    ['setns', { arch: X64, number: 308 }],
    ['fork by clone', { arch: X64, number: 56, first: constants.signals.SIGCHLD }],
    ['a mount namespace', { arch: X64, number: 272, first: 0x20000 }],
    ['an IPv4 socket', { arch: X64, number: 41, first: 2 }],
    ['an IPv6 socket', { arch: X64, number: 41, first: 10 }],
    ['a local socket', { arch: X64, number: 41, first: 1 }],
    ['a netlink socket', { arch: X64, number: 41, first: 16 }],
    ['the newest call', { arch: X64, number: 469 }],
    ['read of 32 bits', { arch: X86, number: 3 }],
    ['a socket of 32 bits', { arch: X86, number: 359, first: 2 }],
  ])('allows %s', (_, call) => expect(answer(x64, call)).toBe('allowed'));

  it.each([
    ['kexec_load', 246],
    ['init_module', 175],
    ['finit_module', 313],
    ['delete_module', 176],
    ['bpf', 321],
    ['perf_event_open', 298],
    ['open_by_handle_at', 304],
    ['userfaultfd', 323],
    ['keyctl', 250],
    ['add_key', 248],
    ['request_key', 249],
    ['swapon', 167],
    ['reboot', 169],
    ['acct', 163],
    ['settimeofday', 164],
    ['clock_settime', 227],
    ['iopl', 172],
    ['ioperm', 173],
    ['quotactl', 179],
    ['syslog', 103],
    ['io_uring_setup', 425],
  ])('denies %s', (_, number) => expect(answer(x64, { arch: X64, number })).toBe('EPERM'));

  it.each([
    ['unshare', { arch: X64, number: 272, first: 0x10000000 }],
    ['unshare with others', { arch: X64, number: 272, first: 0x10020000 }],
    ['clone', { arch: X64, number: 56, first: 0x10000011 }],
    ['unshare of 32 bits', { arch: X86, number: 310, first: 0x10000000 }],
  ])('denies user namespaces by %s', (_, call) => expect(answer(x64, call)).toBe('EPERM'));

  it('hides clone3, so that libraries fall back to clone', () =>
    expect(answer(x64, { arch: X64, number: 435 })).toBe('ENOSYS'));

  it.each([
    ['vsock', 40],
    ['packets', 17],
    ['crypto', 38],
  ])('offers no sockets for %s', (_, first) =>
    expect(answer(x64, { arch: X64, number: 41, first })).toBe('EAFNOSUPPORT'),
  );

  it('denies by their own numbers what 32-bit programs call', () => {
    expect(answer(x64, { arch: X86, number: 283 })).toBe('EPERM');
    expect(answer(x64, { arch: X86, number: 102 })).toBe('EPERM');
    // 246 is kexec_load for 64 bits and io_getevents for 32.
    expect(answer(x64, { arch: X86, number: 246 })).toBe('allowed');
  });

  it('knows neither calls of the future, nor x32, nor other architectures', () => {
    expect(answer(x64, { arch: X64, number: 470 })).toBe('ENOSYS');
    expect(answer(x64, { arch: X64, number: 0x40000000 })).toBe('ENOSYS');
    expect(answer(x64, { arch: X64, number: 0xffffffff })).toBe('ENOSYS');
    expect(answer(x64, { arch: ARM64, number: 0 })).toBe('ENOSYS');
    expect(answer(arm64, { arch: X64, number: 0 })).toBe('ENOSYS');
  });

  it('has numbers of their own for ARM machines', () => {
    expect(answer(arm64, { arch: ARM64, number: 142 })).toBe('EPERM');
    expect(answer(arm64, { arch: ARM64, number: 97, first: 0x10000000 })).toBe('EPERM');
    expect(answer(arm64, { arch: ARM64, number: 198, first: 40 })).toBe('EAFNOSUPPORT');
    expect(answer(arm64, { arch: ARM64, number: 169 })).toBe('allowed');
  });

  it('fits into what the kernel takes', () => expect(x64.length / 8).toBeLessThanOrEqual(4096));

  it('refuses machines that it has no rules for', () =>
    expect(() => systemCallFilter('s390x')).toThrow(/x86_64 and aarch64 machines only; this one is s390x/));
});
