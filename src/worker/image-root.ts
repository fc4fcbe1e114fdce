import { chmodSync, chownSync, lstatSync, utimesSync } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { relative } from 'node:path';
import type { ShellOutcome } from '../protocol/signals.js';
import { mayBeArchive } from './archive/archive-content.js';
import { CommandFailed, type Commands } from './commands.js';
import type { Disk } from './disk.js';
import type { ImsClient } from './ims-client.js';
import type { JobDirectory } from './job-directory.js';
import { JobFailure } from './job-failure.js';
import { provideLoopDevice } from './loop-devices.js';
import {
  copyExtendedAttributes,
  mount,
  MOUNT,
  mountIdmapped,
  SystemCallFailed,
  unmount,
  withFileSystemIds,
} from './linux.js';
import type { Log } from './log.js';
import type { UserNamespace } from './namespaces.js';
import { unpackRootArchive } from './root-archive.js';
import { Teardown } from './teardown.js';

/** How an image root is kept in the job directory. */
export type RootKind = ShellOutcome['root'];

/** What preparing an image root needs of a phase. */
interface PrepareContext {
  directory: JobDirectory;
  commands: Commands;
  disk: Disk;
  ims: ImsClient;
  log: Log;
}

/** An image root that can be worked on. */
export interface MountedRoot {
  path: string;
  /** Another path where the image is as it was before the shell; null where only what was kept of it is left. */
  pristine: string | null;
  unmount(): Promise<void>;
}

/**
 * Options with which an overlay keeps what a plain file system would: `index` keeps hard links whole, `redirect_dir` lets directories of the
 * image be renamed, `xino` keeps inode numbers, and without `metacopy` the changes stand for themselves.
 */
const OVERLAY = 'index=on,redirect_dir=on,xino=on,metacopy=off';

/** Milliseconds for which a mount is tried again whose directory is in use: the kernel takes apart what a dead sandbox had mounted when it has time. */
const BUSY = 10_000;
/** How often a mount is tried whose loop device somebody else took. */
const LOOP_TRIES = 5;

/**
 * The image root of a job: the source as a read-only mount below a layer of changes, or the source unpacked where it is an archive, or this
 * machine cannot mount it. All mounts live in the mount namespace of this process and go with it.
 */
export class ImageRoot {
  private constructor(
    readonly kind: RootKind,
    private readonly directory: JobDirectory,
    private readonly commands: Commands,
  ) {}

  /**
   * Prepares the image root for the first time: tries whether the source can be mounted, and unpacks it otherwise.
   * @throws JobFailure where the source cannot be unpacked either
   */
  static async prepare({ directory, commands, disk, ims, log }: PrepareContext): Promise<ImageRoot> {
    const tell = () => ims.reportProgress({ stage: 'unpack', done: null, total: null });
    if (await mayBeArchive(directory.source)) {
      await tell();
      await unpackRootArchive(directory, commands, disk, log);
      return new ImageRoot('tree', directory, commands);
    }
    const overlay = new ImageRoot('overlay', directory, commands);
    const refusal = await overlay.tryToMount();
    if (refusal === null) return overlay;
    log('the image cannot be mounted here and is unpacked, which takes longer', { reason: refusal });
    await tell();
    await unpack(directory, commands);
    return new ImageRoot('tree', directory, commands);
  }

  /** The image root as an earlier phase left it. */
  static reopen(kind: RootKind, directory: JobDirectory, commands: Commands): ImageRoot {
    return new ImageRoot(kind, directory, commands);
  }

  /** Mounts the image root as it is on disk: owners are the image's own. Nobody may work on it meanwhile. */
  async mountPlain(): Promise<MountedRoot> {
    const { tree, merged, lower, layer } = this.directory;
    if (this.kind === 'tree') return { path: tree, pristine: null, unmount: () => Promise.resolve() };
    return this.mountAll(async (undo) => {
      await this.mountSource(undo);
      await mountOverlay(merged, lower, layer);
      undo.add(() => unmount(merged));
    });
  }

  /** Mounts the image root for those in a user namespace: root there owns what root owns in the image. Device nodes are dead. */
  async mountMapped(namespace: UserNamespace): Promise<MountedRoot> {
    const { tree, merged, lower, mappedLower, layer, mappedLayer } = this.directory;
    const map = async (undo: Teardown, source: string, target: string) => {
      await mkdir(target, { recursive: true });
      mapOwners(source, target, namespace);
      undo.add(() => unmount(target));
    };
    return this.mountAll(async (undo) => {
      if (this.kind === 'tree') return map(undo, tree, merged);
      await this.mountSource(undo);
      await map(undo, lower, mappedLower);
      await map(undo, layer, mappedLayer);
      // The layers know no other owners than those of the namespace: what the overlay makes of its own must belong to one of them.
      await mountOverlay(merged, mappedLower, mappedLayer, (action) => withFileSystemIds(namespace.ids.first, action));
      undo.add(() => unmount(merged));
    });
  }

  private async mountAll(steps: (undo: Teardown) => Promise<void>): Promise<MountedRoot> {
    const undo = new Teardown();
    try {
      await mkdir(this.directory.merged, { recursive: true });
      await steps(undo);
    } catch (error) {
      await undo.run();
      throw error;
    }
    const pristine = this.kind === 'overlay' ? this.directory.lower : null;
    return { path: this.directory.merged, pristine, unmount: () => undo.run() };
  }

  /** By mount(8), which finds a free loop device and has it go with the mount. */
  private async mountSource(undo: Teardown): Promise<void> {
    const { source, lower } = this.directory;
    await mkdir(lower, { recursive: true });
    await withLoopDevice(() =>
      this.commands.run('mount', ['-t', 'squashfs', '-o', 'ro,loop,nodev,nosuid', source, lower]),
    );
    undo.add(() => unmount(lower));
  }

  /** Mounts everything once. Returns why that is refused, or null. */
  private async tryToMount(): Promise<string | null> {
    try {
      await this.makeLayer();
      await (await this.mountPlain()).unmount();
      return null;
    } catch (error) {
      if (error instanceof CommandFailed || error instanceof SystemCallFailed) return error.message;
      throw error;
    }
  }

  /** The root of the changes is the root that users see: it gets all that the image says of its own. */
  private async makeLayer(): Promise<void> {
    const { lower, upper, work } = this.directory;
    for (const path of [upper, work]) await mkdir(path, { recursive: true });
    const undo = new Teardown();
    await this.mountSource(undo);
    try {
      const { mode, uid, gid, atime, mtime } = lstatSync(lower);
      chownSync(upper, uid, gid);
      chmodSync(upper, mode & 0o7777);
      // Those of another overlay, which the image was made from, would mean something here.
      copyExtendedAttributes(lower, upper, (name) => !name.startsWith('trusted.overlay.'));
      utimesSync(upper, atime, mtime);
    } finally {
      await undo.run();
    }
  }
}

/** Others may take a free loop device before we do: then there is another one to be provided. */
async function withLoopDevice(mountOnce: () => Promise<unknown>): Promise<void> {
  for (let tries = 1; ; tries++) {
    provideLoopDevice();
    try {
      await mountOnce();
      return;
    } catch (error) {
      const isTaken = error instanceof CommandFailed && /loop device/.test(error.stderr);
      if (!isTaken || tries === LOOP_TRIES) throw error;
    }
  }
}

/** Mounts an overlay by paths relative to the job directory, where this process is: any other path might hold what separates options. */
async function mountOverlay(
  target: string,
  lower: string,
  layer: string,
  how: (action: () => void) => void = (action) => action(),
): Promise<void> {
  const [lowerdir, upperdir, workdir] = [lower, `${layer}/upper`, `${layer}/work`].map((path) =>
    relative(process.cwd(), path),
  );
  const options = `lowerdir=${lowerdir},upperdir=${upperdir},workdir=${workdir},${OVERLAY}`;
  for (const end = Date.now() + BUSY; ; await new Promise((resolve) => setTimeout(resolve, 20))) {
    try {
      return how(() => mount('ims', target, 'overlay', MOUNT.noDev, options));
    } catch (error) {
      if (!(error instanceof SystemCallFailed) || error.code !== 'EBUSY' || Date.now() > end) throw error;
    }
  }
}

function mapOwners(source: string, target: string, namespace: UserNamespace): void {
  try {
    mountIdmapped(source, target, namespace.fd);
  } catch (error) {
    if (!(error instanceof SystemCallFailed)) throw error;
    throw new JobFailure(
      `this machine cannot map the owners of files on the disk of STATE_DIR (${error.code}): put STATE_DIR on ext4, xfs or btrfs, with Linux 5.15 or later`,
      { cause: error },
    );
  }
}

async function unpack({ source, tree }: JobDirectory, commands: Commands): Promise<void> {
  try {
    await commands.run('unsquashfs', ['-no-progress', '-force', '-dest', tree, source]);
  } catch (error) {
    if (!(error instanceof CommandFailed) || /No space left/.test(error.stderr)) throw error;
    throw new JobFailure('the rootfs of the source image can neither be mounted nor unpacked: it is damaged', {
      cause: error,
    });
  }
}
