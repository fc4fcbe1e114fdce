import { execFileSync } from 'node:child_process';
import type { DemoImage } from '../../src/quickstart/demo-image.js';
import { writeFile } from 'node:fs/promises';
import { buffer } from 'node:stream/consumers';
import { type Header, pack } from 'tar-stream';

/** An entry of an archive: its header, and its content where it is a file. */
export type TarEntry = Partial<Header> & { name: string; content?: string };

/** Makes a tar archive of exactly these entries, however odd. */
export async function packTar(entries: readonly TarEntry[]): Promise<Buffer> {
  const archive = pack();
  for (const { content, ...header } of entries) archive.entry(header, content ?? '');
  archive.finalize();
  return buffer(archive);
}

/** Writes a tar archive of these entries to a file; returns its path. */
export async function writeTar(file: string, entries: readonly TarEntry[]): Promise<string> {
  await writeFile(file, await packTar(entries));
  return file;
}

/** The image with its rootfs as an archive that tar makes, with these options of its own. */
export function asArchive(image: DemoImage, file: string, options: string): DemoImage {
  const tree = `${file}.tree`;
  execFileSync('unsquashfs', ['-no-progress', '-quiet', '-dest', tree, image.rootfs], { stdio: 'ignore' });
  const all = ['--create', '--file', file, '--format=pax', '--xattrs', '--xattrs-include=*', '--numeric-owner'];
  execFileSync('tar', [...all, ...options.split(' '), '--directory', tree, '.']);
  return { ...image, rootfs: file };
}
