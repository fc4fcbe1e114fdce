import { execFile } from 'node:child_process';
import { readdir, readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { promisify } from 'node:util';
import type { ArtifactStore } from '../artifacts/artifact-store.js';
import { findLocation } from '../protocol/artifact-link.js';
import { ARTIFACT_TYPE, type ImageManifest } from '../protocol/image-manifest.js';
import type { Api } from './api.js';

const run = promisify(execFile);

/** What all stories of the quickstart need. */
export interface StoryContext {
  api: Api;
  store: ArtifactStore;
  /** Directory for keys and downloads. */
  directory: string;
  /** Directory of the server's jobs. */
  jobsDirectory: string;
  publicKeyId: string;
  /** Prints a step with its time. */
  step: (text: string) => void;
}

/** A new image, downloaded. */
export interface DownloadedImage {
  /** What its manifest lists, as `rootfs.squashfs`. */
  types: string[];
  /** The text of a file of it. */
  cat: (name: string) => Promise<string>;
  /** All its files, with owners by number. */
  listing: string;
}

/** Downloads the rootfs of an image, and tells what its manifest lists. */
export async function downloadImage(context: StoryContext, imageId: string): Promise<DownloadedImage> {
  const { api, store, directory, step } = context;
  const { link } = await api.request<{ link: { path: string } }>('GET', `/images/${imageId}`);
  const manifest = JSON.parse((await store.readSmall(findLocation(link.path)!, 1 << 20)).toString()) as ImageManifest;
  const types = manifest.artifacts.map(({ type }) => type.split('.image.')[1]!);
  step(`the manifest lists ${types.join(', ')}`);
  const rootfs = manifest.artifacts.find(({ type }) => type === ARTIFACT_TYPE.rootfs)!;
  const file = path.join(directory, 'result.squashfs');
  const pieces = await (await store.read(findLocation(rootfs.link.path)!)).toArray();
  await writeFile(file, Buffer.concat(pieces as Buffer[]));
  const cat = async (name: string) => (await run('unsquashfs', ['-cat', file, name])).stdout;
  const listing = (await run('unsquashfs', ['-lln', '-no-progress', file])).stdout;
  return { types, cat, listing };
}

/**
 * Tells what was checked of an image.
 * @throws Error that names what is wrong
 */
export function expectAll({ step }: StoryContext, checks: readonly [what: string, isRight: boolean][]): void {
  const wrong = checks.filter(([, isRight]) => !isRight).map(([what]) => what);
  if (wrong.length) throw new Error(`the new image is wrong. It is not so that: ${wrong.join('; ')}`);
  step(`the new SquashFS was checked: ${checks.map(([what]) => what).join(', ')}`);
}

/** Deletes a job, and waits until nothing is left of it. */
export async function deleteJob({ api, jobsDirectory, step }: StoryContext, jobId: string): Promise<void> {
  await api.request('DELETE', `/jobs/${jobId}`);
  for (let tries = 0; tries < 100; tries++) {
    const directories = await readdir(jobsDirectory);
    const mounts = await readFile('/proc/self/mountinfo', 'utf8');
    if (!directories.includes(jobId) && !mounts.includes(jobId)) return step('job deleted, nothing left');
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  throw new Error('the deleted job has left something behind');
}
