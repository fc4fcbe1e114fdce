import { createHash } from 'node:crypto';
import zlib from 'node:zlib';

/** A checksum that grows with the content. */
export interface Checksum {
  update(chunk: Buffer): void;
  /** Base64, as the `x-amz-checksum-…` headers have it. */
  digest(): string;
}

function hash(algorithm: 'sha1' | 'sha256'): Checksum {
  const state = createHash(algorithm);
  return { update: (chunk) => void state.update(chunk), digest: () => state.digest('base64') };
}

function bytes32(value: number): string {
  const buffer = Buffer.alloc(4);
  buffer.writeUInt32BE(value >>> 0);
  return buffer.toString('base64');
}

function crc32(): Checksum {
  let value = 0;
  return { update: (chunk) => void (value = zlib.crc32(chunk, value)), digest: () => bytes32(value) };
}

/** Table of a reflected 32-bit CRC. */
function table32(polynomial: number): Uint32Array {
  return Uint32Array.from({ length: 256 }, (_, byte) => {
    let value = byte;
    for (let bit = 0; bit < 8; bit++) value = value & 1 ? (value >>> 1) ^ polynomial : value >>> 1;
    return value >>> 0;
  });
}

/** Castagnoli polynomial, reflected (RFC 3720 appendix B.4). */
const CRC32C_TABLE = table32(0x82f63b78);

function crc32c(): Checksum {
  let value = 0xffffffff;
  return {
    update: (chunk) => {
      for (const byte of chunk) value = CRC32C_TABLE[(value ^ byte) & 0xff]! ^ (value >>> 8);
    },
    digest: () => bytes32(value ^ 0xffffffff),
  };
}

/** CRC-64/NVME, reflected (NVM Express, NVM Command Set Specification), as two 32-bit halves: BigInt would be far too slow. */
const NVME_HIGH = 0x9a6c9329;
const NVME_LOW = 0xac4bc9b5;
const NVME_TABLE = (() => {
  const high = new Uint32Array(256);
  const low = new Uint32Array(256);
  for (let byte = 0; byte < 256; byte++) {
    let [upper, lower] = [0, byte];
    for (let bit = 0; bit < 8; bit++) {
      const carry = lower & 1;
      lower = ((lower >>> 1) | (upper << 31)) >>> 0;
      upper >>>= 1;
      if (carry) [upper, lower] = [(upper ^ NVME_HIGH) >>> 0, (lower ^ NVME_LOW) >>> 0];
    }
    high[byte] = upper;
    low[byte] = lower;
  }
  return { high, low };
})();

function crc64nvme(): Checksum {
  let [upper, lower] = [0xffffffff, 0xffffffff];
  return {
    update: (chunk) => {
      for (const byte of chunk) {
        const index = (lower ^ byte) & 0xff;
        lower = (((lower >>> 8) | (upper << 24)) ^ NVME_TABLE.low[index]!) >>> 0;
        upper = ((upper >>> 8) ^ NVME_TABLE.high[index]!) >>> 0;
      }
    },
    digest: () => {
      const buffer = Buffer.alloc(8);
      buffer.writeUInt32BE((upper ^ 0xffffffff) >>> 0, 0);
      buffer.writeUInt32BE((lower ^ 0xffffffff) >>> 0, 4);
      return buffer.toString('base64');
    },
  };
}

/** Checksums that S3 knows, by the names of their headers. */
export const CHECKSUMS = {
  crc32,
  crc32c,
  crc64nvme,
  sha1: () => hash('sha1'),
  sha256: () => hash('sha256'),
} as const satisfies Record<string, () => Checksum>;

export type ChecksumName = keyof typeof CHECKSUMS;
