import { lstatSync, type FSWatcher, watch } from 'node:fs';
import { rm } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { SHELL_SIGNALS, type ShellSignal } from '../protocol/signals.js';
import { findIn, type OpenPath } from './linux.js';

/** Notices how the user ends the shell: by an empty file with the name of a signal, in a directory agreed upon. */
export abstract class SignalFiles {
  /** The signal that is there now; `complete` where both are. */
  abstract look(): ShellSignal | null;
  /** Resolves with the first signal that appears, or is there already. Rejects with the reason of `abort` when that is aborted. */
  abstract next(abort: AbortSignal): Promise<ShellSignal>;
}

/** Removes whatever has the name of a signal, as an image may bring such files along. Nobody works in the root meanwhile. */
export async function removeSignalFiles(root: string, directory: string): Promise<void> {
  const place = findIn(root, directory, 'directory');
  if (!place) return;
  try {
    for (const name of SHELL_SIGNALS) await rm(join(place.path, name), { recursive: true, force: true });
  } finally {
    place.close();
  }
}

/**
 * Signal files by inotify, noticed within milliseconds. The user owns the directory: it may be missing, be removed and made again, or lead
 * elsewhere by a link. So it is opened afresh for every look, below the root only, and a look is taken every few seconds in any case. A
 * signal counts whatever kind of file it is, and is never followed.
 */
export class InotifySignalFiles extends SignalFiles {
  /**
   * @param root what the user sees as `/`
   * @param directory of the signal files, as the user sees it
   * @param interval milliseconds between looks where inotify says nothing
   */
  constructor(
    private readonly root: string,
    private readonly directory: string,
    private readonly interval = 5000,
  ) {
    super();
  }

  override look(): ShellSignal | null {
    const place = findIn(this.root, this.directory, 'directory');
    try {
      return place && signalIn(place);
    } finally {
      place?.close();
    }
  }

  override async next(abort: AbortSignal): Promise<ShellSignal> {
    for (;;) {
      abort.throwIfAborted();
      const signal = await this.watchOnce(abort);
      if (signal) return signal;
    }
  }

  /** Watches the directory as it is now, until something happens to it or it is time for another look. */
  private async watchOnce(abort: AbortSignal): Promise<ShellSignal | null> {
    const place = findIn(this.root, this.directory, 'directory');
    try {
      const change = new Change(abort, this.interval);
      const watcher = place && watchPlace(place, change);
      try {
        // After the watch is set: what came before is seen now, what comes later is told.
        const signal = place && signalIn(place);
        if (signal) change.happened();
        await change.promise;
        return signal ?? (place && signalIn(place));
      } finally {
        watcher?.close();
        change.happened();
      }
    } finally {
      place?.close();
    }
  }
}

/** Resolves when something happened, was aborted, or after an interval. */
class Change {
  readonly promise: Promise<void>;
  happened: () => void = () => {};

  constructor(abort: AbortSignal, interval: number) {
    this.promise = new Promise((resolve) => {
      const timer = setTimeout(() => this.happened(), interval);
      this.happened = () => {
        clearTimeout(timer);
        abort.removeEventListener('abort', this.happened);
        resolve();
      };
      abort.addEventListener('abort', this.happened);
    });
  }
}

function signalIn(place: OpenPath): ShellSignal | null {
  return SHELL_SIGNALS.find((name) => lstatSync(join(place.path, name), { throwIfNoEntry: false })) ?? null;
}

/** Null where the kernel has no more watches to give: then looks from time to time must do. */
function watchPlace(place: OpenPath, change: Change): FSWatcher | null {
  // A busy /tmp tells of much else; the directory itself is told of by the last part of its path.
  const names: readonly string[] = [...SHELL_SIGNALS, basename(place.path)];
  try {
    const watcher = watch(place.path, (_, name) => {
      if (name === null || names.includes(name)) change.happened();
    });
    return watcher.on('error', () => change.happened());
  } catch {
    return null;
  }
}
