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
