import { createHash } from 'node:crypto';
import { basename, dirname } from 'node:path';
import { gzipSync } from 'node:zlib';
import type { PackageSigner } from './package-signer.js';
import { encodeHeader, type RpmTag, type RpmValue } from './rpm-header.js';

/** A package for all architectures that brings one file, and runs a script when it is installed. */
export interface RpmPackage {
  name: string;
  version: string;
  release: string;
  summary: string;
  /** An absolute path, a regular file of root with the mode 644. */
  file: { path: string; content: Buffer };
  /** Text of a script of /bin/sh, run after the file is in place. */
  afterInstall: string;
  /** When the package was built. */
  built: Date;
}

const REGULAR_644 = 0o100644;
const SHA256 = 8;
/** Bits of a dependency (rpmds.h): less, equal, needed by the script interpreter, by the script after installation, by rpm itself. */
const SENSE = { less: 2, equal: 8, interpreter: 256, afterInstall: 1024, rpmlib: 0x1000000 };

const text = (value: string): RpmValue => ({ type: 'string', value });
const texts = (...values: string[]): RpmValue => ({ type: 'strings', values });
const translated = (...values: string[]): RpmValue => ({ type: 'translated', values });
const int16 = (...values: number[]): RpmValue => ({ type: 'int16', values });
const int32 = (...values: number[]): RpmValue => ({ type: 'int32', values });
const bytes = (value: Buffer): RpmValue => ({ type: 'bytes', value });

const hash = (algorithm: 'md5' | 'sha1' | 'sha256', ...parts: Buffer[]) => {
  const digest = createHash(algorithm);
  for (const part of parts) digest.update(part);
  return digest;
};

/**
 * Makes a package file (rpm's docs/manual/format.md), which rpm, zypper and dnf install. No tool and no shell is run for it. The same
 * package gives the same bytes, but for a signature.
 */
export async function encodeRpm(rpm: RpmPackage, signer: PackageSigner | null): Promise<Buffer> {
  const archive = encodeArchive(rpm);
  const payload = gzipSync(archive, { level: 9 });
  const header = encodeHeader(63, headerTags(rpm, payload));
  const signature = encodeHeader(62, [
    ...(signer ? [[268, bytes(await signer.sign(header))] satisfies RpmTag] : []),
    [269, text(hash('sha1', header).digest('hex'))],
    [273, text(hash('sha256', header).digest('hex'))],
    [1000, int32(header.length + payload.length)],
    [1004, bytes(hash('md5', header, payload).digest())],
    [1007, int32(archive.length)],
  ]);
  const padding = Buffer.alloc((8 - (signature.length % 8)) % 8);
  return Buffer.concat([encodeLead(rpm), signature, padding, header, payload]);
}

/** The first 96 bytes, by which file(1) knows a package; rpm itself reads no more than the magic number and the signature type. */
function encodeLead({ name, version, release }: RpmPackage): Buffer {
  const lead = Buffer.alloc(96);
  lead.writeUInt32BE(0xedabeedb, 0);
  lead.writeUInt8(3, 4);
  lead.writeUInt16BE(1, 8);
  lead.write(`${name}-${version}-${release}`, 10, 65);
  lead.writeUInt16BE(1, 76);
  lead.writeUInt16BE(5, 78);
  return lead;
}

function headerTags(rpm: RpmPackage, payload: Buffer): RpmTag[] {
  return [
    [100, texts('C')],
    [1000, text(rpm.name)],
    [1001, text(rpm.version)],
    [1002, text(rpm.release)],
    [1004, translated(rpm.summary)],
    [1005, translated(rpm.summary)],
    [1006, int32(seconds(rpm.built))],
    [1007, text('localhost')],
    [1009, int32(rpm.file.content.length)],
    [1014, text('MIT')],
    [1016, translated('System/Base')],
    [1021, text('linux')],
    [1022, text('noarch')],
    [1024, text(rpm.afterInstall)],
    [1086, text('/bin/sh')],
    [1044, text(`${rpm.name}-${rpm.version}-${rpm.release}.src.rpm`)],
    [1064, text('4.14.0')],
    [1124, text('cpio')],
    [1125, text('gzip')],
    [1126, text('9')],
    [5062, text('utf-8')],
    [5092, texts(hash('sha256', payload).digest('hex'))],
    [5093, int32(SHA256)],
    ...fileTags(rpm),
    ...dependencyTags(rpm),
  ];
}

function fileTags({ file, built }: RpmPackage): RpmTag[] {
  return [
    [1028, int32(file.content.length)],
    [1030, int16(REGULAR_644)],
    [1033, int16(0)],
    [1034, int32(seconds(built))],
    [1035, texts(hash('sha256', file.content).digest('hex'))],
    [1036, texts('')],
    [1037, int32(0)],
    [1039, texts('root')],
    [1040, texts('root')],
    [1045, int32(0xffffffff)],
    [1095, int32(1)],
    [1096, int32(1)],
    [1097, texts('')],
    [1116, int32(0)],
    [1117, texts(basename(file.path))],
    [1118, texts(`${dirname(file.path)}/`)],
    [5011, int32(SHA256)],
  ];
}

function dependencyTags({ name, version, release }: RpmPackage): RpmTag[] {
  const needs: [name: string, sense: number, version: string][] = [
    ['/bin/sh', SENSE.interpreter | SENSE.afterInstall, ''],
    ['rpmlib(CompressedFileNames)', SENSE.rpmlib | SENSE.less | SENSE.equal, '3.0.4-1'],
    ['rpmlib(FileDigests)', SENSE.rpmlib | SENSE.less | SENSE.equal, '4.6.0-1'],
    ['rpmlib(PayloadFilesHavePrefix)', SENSE.rpmlib | SENSE.less | SENSE.equal, '4.0-1'],
  ];
  return [
    [1047, texts(name)],
    [1112, int32(SENSE.equal)],
    [1113, texts(`${version}-${release}`)],
    [1048, int32(...needs.map(([, sense]) => sense))],
    [1049, texts(...needs.map(([need]) => need))],
    [1050, texts(...needs.map(([, , wanted]) => wanted))],
  ];
}

/** The file as a cpio archive of the format `newc` (cpio(5)). */
function encodeArchive({ file, built }: RpmPackage): Buffer {
  return Buffer.concat([
    cpioEntry(`.${file.path}`, REGULAR_644, 1, seconds(built), file.content),
    cpioEntry('TRAILER!!!', 0, 0, 0, Buffer.alloc(0)),
  ]);
}

function cpioEntry(name: string, mode: number, inode: number, time: number, content: Buffer): Buffer {
  const fields = [inode, mode, 0, 0, 1, time, content.length, 0, 0, 0, 0, Buffer.byteLength(name) + 1, 0];
  const head = `070701${fields.map((field) => field.toString(16).padStart(8, '0')).join('')}${name}\0`;
  return Buffer.concat([padded(Buffer.from(head)), padded(content)]);
}

/** Filled with zeros to a multiple of four bytes. */
function padded(content: Buffer): Buffer {
  return Buffer.concat([content, Buffer.alloc((4 - (content.length % 4)) % 4)]);
}

function seconds(time: Date): number {
  return Math.floor(time.getTime() / 1000);
}
