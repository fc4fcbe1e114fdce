import { PassThrough } from 'node:stream';
import { buffer } from 'node:stream/consumers';
import { BoundedLog } from './bounded-log.js';

const MIB = 1024 * 1024;

/** What is kept of an output that comes in these pieces. */
async function kept(pieces: Iterable<Buffer>): Promise<Buffer> {
  const file = new PassThrough({ highWaterMark: 64 * MIB });
  const log = new BoundedLog(file);
  for (const piece of pieces) log.add(piece);
  log.end();
  file.end();
  return buffer(file);
}

/** Bytes of which each stretch is another one. */
const output = (length: number) => {
  const bytes = Buffer.alloc(length);
  for (let at = 0; at + 4 <= length; at += 4) bytes.writeUInt32LE(at, at);
  return bytes;
};

function* cut(bytes: Buffer, length: number) {
  for (let at = 0; at < bytes.length; at += length) yield bytes.subarray(at, at + length);
}

it.each([0, 1, 12 * MIB, 12 * MIB + 1, 16 * MIB])('%d bytes are kept whole', async (length) => {
  const all = output(length);
  for (const piece of [65_536, 5 * MIB, 100 * MIB]) expect((await kept(cut(all, piece))).equals(all)).toBe(true);
});

it.each([65_536, 99_991, 5 * MIB, 100 * MIB])(
  'of more, in pieces of %d bytes, the beginning and the end',
  async (piece) => {
    const all = output(29 * MIB + 7);
    const text = await kept(cut(all, piece));
    const line = Buffer.from(`\n[${13 * MIB + 7} bytes of the log of this phase were left out here]\n`);
    expect(text.equals(Buffer.concat([all.subarray(0, 12 * MIB), line, all.subarray(-4 * MIB)]))).toBe(true);
  },
);
