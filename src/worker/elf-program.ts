/** Where programs are loaded. */
const ADDRESS = 0x400000;
/** Bytes of the headers: of the file, and of its one segment. */
export const ELF_HEADERS = 64 + 56;

/** Machines, as ELF numbers them. */
export const ELF_MACHINE = { x86_64: 0x3e, aarch64: 0xb7 } as const;

/**
 * A static program (elf(5)) of one segment, which may be read, written and executed. It needs nothing of the root that it runs in.
 * @param content what stands behind the headers; it is run from its first byte
 * @param memory bytes of the segment, headers included; what the file does not fill is zeros
 */
export function elfProgram(machine: number, content: Buffer, memory = ELF_HEADERS + content.length): Buffer {
  const program = Buffer.concat([Buffer.alloc(ELF_HEADERS), content]);
  program.write('\x7fELF\x02\x01\x01', 0, 'latin1');
  program.writeUInt16LE(2, 16);
  program.writeUInt16LE(machine, 18);
  program.writeUInt32LE(1, 20);
  program.writeBigUInt64LE(BigInt(ADDRESS + ELF_HEADERS), 24);
  program.writeBigUInt64LE(64n, 32);
  program.writeUInt16LE(64, 52);
  program.writeUInt16LE(56, 54);
  program.writeUInt16LE(1, 56);
  program.writeUInt32LE(1, 64);
  program.writeUInt32LE(7, 68);
  program.writeBigUInt64LE(BigInt(ADDRESS), 80);
  program.writeBigUInt64LE(BigInt(ADDRESS), 88);
  program.writeBigUInt64LE(BigInt(program.length), 96);
  program.writeBigUInt64LE(BigInt(memory), 104);
  program.writeBigUInt64LE(0x1000n, 112);
  return program;
}
