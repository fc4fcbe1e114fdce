import { constants } from 'node:fs';
import { lstat, mkdir, open, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { Commands } from './commands.js';
import { findIn } from './linux.js';

/*
 * Names must resolve while the user works in the image root, and the new image must have the resolv.conf of the old one. So the shell's own
 * file takes the place of the image's before the shell starts, and the image's comes back when it has ended. What the user made of it
 * meanwhile is lost, as it always was. All paths of the image are followed inside of it only.
 */

const NAME = 'resolv.conf';
const DIRECTORY = '/etc';

async function exists(file: string): Promise<boolean> {
  return lstat(file).then(
    () => true,
    () => false,
  );
}

/**
 * Puts a resolv.conf into the image root in place of whatever is there: a file, or a link that leads nowhere.
 * @returns false where the image has no directory for it
 */
export async function provideResolvConf(root: string, content: string): Promise<boolean> {
  const etc = findIn(root, DIRECTORY, 'directory');
  if (!etc) return false;
  try {
    const file = join(etc.path, NAME);
    await rm(file, { recursive: true, force: true });
    const handle = await open(file, constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW);
    try {
      await handle.writeFile(content);
      await handle.chmod(0o644);
    } finally {
      await handle.close();
    }
  } finally {
    etc.close();
  }
  return true;
}

/**
 * Puts the image's own resolv.conf back: file or link with all its attributes, or none where it had none.
 * @param root the image root, on which nobody works any more
 * @param pristine the image as it was, or a copy made by `keepResolvConf`
 */
export async function restoreResolvConf(root: string, pristine: string, commands: Commands): Promise<void> {
  const etc = findIn(root, DIRECTORY, 'directory');
  if (!etc) return;
  try {
    await rm(join(etc.path, NAME), { recursive: true, force: true });
    await copyResolvConf(pristine, etc.path, commands);
  } finally {
    etc.close();
  }
}

/** Copies the resolv.conf of an image root into an empty directory, from where `restoreResolvConf` can take it. */
export async function keepResolvConf(root: string, pristine: string, commands: Commands): Promise<void> {
  const etc = join(pristine, DIRECTORY);
  await mkdir(etc, { recursive: true, mode: 0o700 });
  await copyResolvConf(root, etc, commands);
}

/** `to` is a directory. Nothing is copied where there is no such file. */
async function copyResolvConf(root: string, to: string, commands: Commands): Promise<void> {
  const etc = findIn(root, DIRECTORY, 'directory');
  if (!etc) return;
  try {
    const file = join(etc.path, NAME);
    if (await exists(file)) await commands.run('cp', ['--archive', '--', file, join(to, NAME)]);
  } finally {
    etc.close();
  }
}
