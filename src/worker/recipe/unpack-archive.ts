import { mkdir } from 'node:fs/promises';
import type { UnpackLimits } from '../../protocol/job-spec.js';
import { BadArchive } from '../archive/bad-archive.js';
import { quoted, type Unpacked, unpackTar } from '../archive/unpack-tar.js';
import type { Commands } from '../commands.js';
import { openBeneath, SystemCallFailed } from '../linux.js';

/** What is below is copied into the new root by KIWI-NG, links as links: they are made for that root, and are never followed here. */
const OVERLAY = 'root/';
const REMEDY = {
  bytes: 'take out what the recipe does not need, or raise JOB_RECIPE_MAX_MIB',
  entries: 'take out what the recipe does not need, or raise JOB_RECIPE_MAX_ENTRIES',
};

/**
 * Unpacks the archive of a recipe into a directory, as `unpackTar`. All files belong to root, and no link may lead out of the recipe.
 * @param target does not exist yet
 * @throws BadArchive where the archive is damaged, too large, or holds what a recipe must not
 */
export async function unpackArchive(
  archive: string,
  target: string,
  limits: UnpackLimits,
  commands: Commands,
): Promise<Unpacked> {
  await mkdir(target, { mode: 0o700 });
  const policy = { limits, remedy: REMEDY, keepsAll: false, xattrs: [] };
  const { unpacked, symlinks } = await unpackTar(archive, target, policy, commands);
  refuseLinksOut(target, symlinks);
  return unpacked;
}

/** Links may lead to anything in the recipe, also where that is missing, but not out of it. */
function refuseLinksOut(target: string, links: readonly string[]): void {
  for (const path of links.filter((name) => !name.startsWith(OVERLAY))) {
    try {
      openBeneath(target, Buffer.from(path, 'latin1'), 'any', 'follow').close();
    } catch (error) {
      if (!(error instanceof SystemCallFailed)) throw error;
      if (error.code === 'EXDEV') throw new BadArchive(`holds the link ${quoted(path)}, which leads out of the recipe`);
    }
  }
}
