/* Instructions of A64 (Arm Architecture Reference Manual, C6.2), as far as one small program needs them. */
const movz = (register: number, value: number) => 0xd2800000 + (value << 5) + register;
const movn = (register: number, value: number) => 0x92800000 + (value << 5) + register;
const adr = (register: number, distance: number) =>
  (0x10000000 | ((distance & 3) << 29) | ((distance >> 2) << 5) | register) >>> 0;
const SVC = 0xd4000001;

/** System calls of aarch64 (asm-generic/unistd.h). */
const CALL = { openat: 56, write: 64, exit: 93, uname: 160 };
const O_WRONLY_CREAT_TRUNC = 0x241;
/** Each member of `struct utsname` has so many bytes; the machine is the fifth. */
const UTS_MEMBER = 65;

const ADDRESS = 0x400000;
const HEADERS = 64 + 56;
const CODE_WORDS = 20;
/** Where the program wants to know what it runs on; behind its code and its text, below the end of its memory. */
const BUFFER = 0x800;
const MEMORY = 0x1000;

/**
 * A static program of aarch64, which nothing has to be installed for. Whatever it is called with, it writes what machine it runs on to a
 * file, prints nothing, and ends well: so it can stand for the shell of a root, and shows that its scripts ran on that machine.
 * @param file path of the file
 */
export function aarch64Program(file: string): Buffer {
  const path = HEADERS + CODE_WORDS * 4;
  const code: number[] = [];
  const address = (register: number, place: number) => code.push(adr(register, place - HEADERS - code.length * 4));
  const call = (number: number) => code.push(movz(8, number), SVC);
  address(0, BUFFER);
  call(CALL.uname);
  code.push(movn(0, 99));
  address(1, path);
  code.push(movz(2, O_WRONLY_CREAT_TRUNC), movz(3, 0o644));
  call(CALL.openat);
  address(1, BUFFER + 4 * UTS_MEMBER);
  code.push(movz(2, 'aarch64'.length));
  call(CALL.write);
  code.push(movz(0, 0));
  call(CALL.exit);
  if (code.length > CODE_WORDS) throw new Error(`the program has ${code.length} instructions`);
  const program = Buffer.alloc(path + file.length + 1);
  elfHeaders(program.length).copy(program);
  for (const [index, word] of code.entries()) program.writeUInt32LE(word, HEADERS + index * 4);
  program.write(file, path, 'latin1');
  return program;
}

/** Headers of an ELF file with one segment (elf(5)): all of the file, and memory behind it. */
function elfHeaders(size: number): Buffer {
  const headers = Buffer.alloc(HEADERS);
  headers.write('\x7fELF\x02\x01\x01', 0, 'latin1');
  headers.writeUInt16LE(2, 16);
  headers.writeUInt16LE(0xb7, 18);
  headers.writeUInt32LE(1, 20);
  headers.writeBigUInt64LE(BigInt(ADDRESS + HEADERS), 24);
  headers.writeBigUInt64LE(64n, 32);
  headers.writeUInt16LE(64, 52);
  headers.writeUInt16LE(56, 54);
  headers.writeUInt16LE(1, 56);
  headers.writeUInt32LE(1, 64);
  headers.writeUInt32LE(7, 68);
  headers.writeBigUInt64LE(BigInt(ADDRESS), 80);
  headers.writeBigUInt64LE(BigInt(ADDRESS), 88);
  headers.writeBigUInt64LE(BigInt(size), 96);
  headers.writeBigUInt64LE(BigInt(MEMORY), 104);
  headers.writeBigUInt64LE(0x1000n, 112);
  return headers;
}
