import { type ChildProcess, execFileSync, spawn, spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readlinkSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import type { Overlay } from '../../src/worker/squashfs/merged-tree.js';
import { packDelta } from '../../src/worker/squashfs/delta.js';
import { packFull, type PackingTarget } from '../../src/worker/squashfs/full.js';
import type { ImageReport } from '../../src/worker/squashfs/pack-report.js';

/**
 * Options of an overlay as image roots have them. Mounted `noatime`: mksquashfs takes names of one inode for several where a time changed while it
 * read the link behind one of them.
 */
const OVERLAY = 'index=on,redirect_dir=on,xino=on,metacopy=off';

/** Bytes for blocks on their way. */
const MEMORY = 64 << 20;

/**
 * A mount namespace of its own, kept by a process that does nothing else: mounts live in it and go with it. Its files are reached through
 * the root of that process, by this one too.
 */
export class Lab {
  private readonly holder: ChildProcess;
  /** As the namespace sees it. */
  readonly directory = mkdtempSync(path.join(tmpdir(), 'ims-squashfs-'));

  constructor() {
    this.holder = spawn('unshare', ['--mount', '--propagation', 'private', 'sleep', 'infinity'], { stdio: 'ignore' });
    const own = readlinkSync('/proc/self/ns/mnt');
    const isApart = () => readlinkSync(`/proc/${this.holder.pid}/ns/mnt`) !== own;
    for (const end = Date.now() + 5000; !isApart();) if (Date.now() > end) throw new Error('no mount namespace');
  }

  stop(): void {
    this.holder.kill('SIGKILL');
    rmSync(this.directory, { recursive: true, force: true });
  }

  /** A path that this process can use, also below mounts. */
  at(...names: string[]): string {
    return path.join(`/proc/${this.holder.pid}/root`, this.directory, ...names);
  }

  /** Makes a directory anew. */
  empty(name: string): string {
    rmSync(this.at(name), { recursive: true, force: true });
    mkdirSync(this.at(name), { recursive: true });
    return this.at(name);
  }

  /** Runs a shell script in the directory; returns what it printed. */
  sh(script: string): string {
    const { status, stdout, stderr } = spawnSync(
      'nsenter',
      [`--mount=/proc/${this.holder.pid}/ns/mnt`, 'bash', '-ec', `cd '${this.directory}'; ${script}`],
      { encoding: 'utf8', maxBuffer: 256 << 20, env: { ...process.env, LC_ALL: 'C.UTF-8' } },
    );
    if (status !== 0) throw new Error(`${script}: ${status}\n${stdout.slice(-2000)}${stderr}`);
    return stdout;
  }

  /** Packs a directory with mksquashfs. */
  pack(directory: string, image: string, options: string): void {
    this.sh(
      `mksquashfs ${directory} ${image} -noappend -quiet -no-progress ${options} >/dev/null 2>log || { cat log >&2; false; }`,
    );
  }

  /** Works with an image below an overlay, which is seen at `overlay/merged` meanwhile. */
  async withOverlay<Result>(image: string, work: (overlay: Overlay) => Promise<Result> | Result): Promise<Result> {
    const overlay = this.overlay(image, 'overlay');
    try {
      return await work(overlay);
    } finally {
      this.unmount('overlay');
    }
  }

  /** Mounts an image below an overlay, with an empty layer; the overlay is then seen at `<name>/merged`. */
  private overlay(image: string, name: string): Overlay {
    this.sh(`rm -rf ${name}; mkdir -p ${name}/{lower,layer/upper,layer/work,merged}
      mount -t squashfs -o ro,loop ${image} ${name}/lower
      chown --reference=${name}/lower ${name}/layer/upper; chmod --reference=${name}/lower ${name}/layer/upper
      touch --reference=${name}/lower ${name}/layer/upper
      mount -t overlay ims ${name}/merged -o noatime,lowerdir=${name}/lower,upperdir=${name}/layer/upper,workdir=${name}/layer/work,${OVERLAY}`);
    return {
      merged: this.at(name, 'merged'),
      upper: this.at(name, 'layer/upper'),
      index: this.at(name, 'layer/work/index'),
    };
  }

  private unmount(name: string): void {
    this.sh(`umount ${name}/merged ${name}/lower; rm -rf ${name}`);
  }

  /** Packs an overlay with the packer under test. */
  async delta(
    source: string,
    overlay: Overlay,
    output: string,
    more: { level?: number; processors?: number } = {},
  ): Promise<ImageReport> {
    return packDelta({
      source: this.at(source),
      overlay,
      output: this.at(output),
      level: more.level ?? 1,
      processors: more.processors ?? 2,
      memory: MEMORY,
      signal: new AbortController().signal,
    });
  }

  /** Packs a directory with the packer under test. */
  async full(
    directory: string,
    output: string,
    target: Partial<PackingTarget> = {},
    processors = 2,
    pristine: string | null = null,
  ): Promise<ImageReport> {
    return packFull({
      root: this.at(directory),
      pristine: pristine && this.at(pristine),
      output: this.at(output),
      target: { compression: 'gzip', level: null, blockSize: 131_072, ...target },
      processors,
      memory: MEMORY,
      signal: new AbortController().signal,
    });
  }

  /** How two images differ when the kernel mounts them: contents, attributes, links, devices, times, lengths on disk. */
  differences(a: string, b: string): string[] {
    const script = `mkdir -p A B; mount -t squashfs -o ro,loop ${a} A; mount -t squashfs -o ro,loop ${b} B
      trap 'umount A B' EXIT
      facts() { cd "$1"; find . -printf '%P %y %m %U %G %n %T@ %l\\n' | sort; find . ! -type d -printf '%P %s %b\\n' | sort
        find . -type b -o -type c | sort | xargs -d '\\n' -r stat -c '%n %t:%T'; getfattr -Rhd -m - -e hex . 2>/dev/null
        getcap -r . ; find . -type f -links +1 -printf '%i %P\\n' | sort -k2 | awk '!($1 in n) {n[$1]=++i} {print n[$1], $2}'; }
      rsync -aHAXni --checksum --delete --numeric-ids A/ B/
      diff <(facts A) <(facts B) || true`;
    return this.sh(script).split('\n').filter(Boolean);
  }
}

/** Whether this machine lets tests mount. */
export function canMount(): boolean {
  try {
    execFileSync('unshare', ['--mount', '--propagation', 'private', 'true']);
    return process.getuid?.() === 0;
  } catch {
    return false;
  }
}
