import { ELF_HEADERS, ELF_MACHINE, elfProgram } from '../../src/worker/elf-program.js';

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
  const path = ELF_HEADERS + CODE_WORDS * 4;
  const code: number[] = [];
  const address = (register: number, place: number) => code.push(adr(register, place - ELF_HEADERS - code.length * 4));
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
  const content = Buffer.alloc(CODE_WORDS * 4 + file.length + 1);
  for (const [index, word] of code.entries()) content.writeUInt32LE(word, index * 4);
  content.write(file, CODE_WORDS * 4, 'latin1');
  return elfProgram(ELF_MACHINE.aarch64, content, MEMORY);
}
