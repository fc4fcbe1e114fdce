import { CHECKSUMS, type ChecksumName } from './checksums.js';

// Check values of "123456789", from the catalogue of parametrised CRC algorithms and RFC 6234.
const CHECK: Record<ChecksumName, string> = {
  crc32: Buffer.from('cbf43926', 'hex').toString('base64'),
  crc32c: Buffer.from('e3069283', 'hex').toString('base64'),
  crc64nvme: Buffer.from('ae8b14860a799888', 'hex').toString('base64'),
  sha1: Buffer.from('f7c3bc1d808e04732adf679965ccc34ca7ae3441', 'hex').toString('base64'),
  sha256: Buffer.from('15e2b0d3c33891ebb0f1ef609ec419420c20e320ce94c65fbc8c3312448eb225', 'hex').toString('base64'),
};

it.each(Object.entries(CHECK))('%s, also in pieces', (name, expected) => {
  const checksum = CHECKSUMS[name as ChecksumName]();
  checksum.update(Buffer.from('1234'));
  checksum.update(Buffer.from('56789'));
  expect(checksum.digest()).toBe(expected);
});
