import type { CopiedRange } from '../part-plan.js';
import { ContentMatcher } from './content-match.js';
import type { PackableTree } from './disk-tree.js';
import type { FileInode } from './inode.js';
import { findLiveData, type LiveData } from './live-data.js';
import { SquashfsImage } from './squashfs-image.js';
import { Stopwatch } from './stopwatch.js';
import { leaves, type NewContent, type TreeFile } from './tree.js';

export interface DeltaPlanOptions {
  /** Path of the image that contents are taken from. */
  source: string;
  /** With which new blocks will be compressed; null for the default of the compression. */
  level: number | null;
  /** Ends the work. */
  signal: AbortSignal;
}

/** A file with a content that the source lacks. */
export type NewFile = TreeFile & { content: NewContent };

/** Files of the source with the same size that are compared with a new one. */
const TWIN_LIMIT = 8;

/** What a new image takes from its source, and what has to be compressed for it. Nothing is written yet. */
export class DeltaPlan {
  /** All files of the tree, each once, in its order. */
  readonly files: TreeFile[];
  readonly stopwatch = new Stopwatch();
  /** What of the source is needed. */
  live: LiveData = { copied: [], wholeFragments: [], brokenFragments: [] };

  private constructor(
    readonly image: SquashfsImage,
    readonly tree: PackableTree,
    private readonly options: DeltaPlanOptions,
  ) {
    this.files = [...leaves(tree.root)].filter((node) => node.kind === 'file');
  }

  /**
   * Plans an image of a tree whose old contents are those of the source. The caller closes the plan.
   * @throws BadSquashfs and NotSquashfs for the source, CodecMissing; FileChanged, the reason of the signal
   */
  static async make(options: DeltaPlanOptions, readTree: (image: SquashfsImage) => PackableTree): Promise<DeltaPlan> {
    const image = SquashfsImage.open(options.source, options.level);
    try {
      const started = performance.now();
      const plan = new DeltaPlan(image, readTree(image), options);
      plan.stopwatch.add('tables', started);
      await plan.stopwatch.time('compare', () => plan.reuse());
      plan.live = plan.findLiveData();
      return plan;
    } catch (error) {
      image.close();
      throw error;
    }
  }

  close(): void {
    this.image.close();
  }

  /** Path of the source. */
  get source(): string {
    return this.options.source;
  }

  /** Ends the work when it is told to. */
  get signal(): AbortSignal {
    return this.options.signal;
  }

  /** Where the new image has the bytes of the source, in its own order: in front of everything else, one behind the other. */
  get copied(): CopiedRange[] {
    let position = this.image.dataStart;
    return this.live.copied.map(({ start, end }) => {
      const length = end - start;
      position += length;
      return { start: position - length, source: start, length };
    });
  }

  /** What has to be compressed, in the order of the tree. */
  get newContents(): NewContent[] {
    return this.files.filter(isNew).map(({ content }) => content);
  }

  private findLiveData(): LiveData {
    return findLiveData(this.image, this.oldContents());
  }

  private *oldContents(): Generator<FileInode, void, void> {
    for (const { content } of this.files) if (content.from === 'source') yield this.image.file(content.inode);
  }

  /** Finds files that are new by name only: contents that the source has become old. */
  private async reuse(): Promise<void> {
    addTwinsBySize(this.image, this.newContents);
    const matcher = new ContentMatcher(this.image, this.options.signal);
    const found = await matcher.findTwins(this.newContents);
    for (const file of this.files.filter(isNew)) {
      const { size, allocated } = file.content;
      const inode = found.get(file.content);
      // What was written out as zeros counts as written, whatever the image says of it.
      const sparse = inode && allocated < size ? inode.sparse : 0;
      if (inode) (file as TreeFile).content = { from: 'source', inode: inode.number, sparse };
    }
  }
}

function isNew(file: TreeFile): file is NewFile {
  return file.content.from === 'file';
}

/** Adds files of the source that have the same size, whatever their names. */
function addTwinsBySize(image: SquashfsImage, contents: NewContent[]): void {
  const bySize = groupBySize(contents);
  bySize.delete(0);
  if (bySize.size === 0) return;
  for (const number of image.index.filesOf(bySize)) {
    const inode = image.file(number);
    for (const { twins } of bySize.get(inode.size)!)
      if (twins.length < TWIN_LIMIT && !twins.some((twin) => twin.number === number)) twins.push(inode);
  }
}

function groupBySize(contents: NewContent[]): Map<number, NewContent[]> {
  const groups = new Map<number, NewContent[]>();
  for (const content of contents) {
    const group = groups.get(content.size);
    if (group) group.push(content);
    else groups.set(content.size, [content]);
  }
  return groups;
}
