import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { closeSync, fstatSync, openSync, readdirSync, readFileSync, rmSync, statSync, writeSync } from 'node:fs';
import path from 'node:path';
import { parseArgs } from 'node:util';
import type { DeltaReport } from '../src/worker/squashfs/delta.js';
import type { Overlay } from '../src/worker/squashfs/merged-tree.js';
import { Lab } from '../test/support/squashfs-lab.js';

/*
 * What packing a customized image costs: `npm run bench:pack -- [--size small] [--runs N] [--change PERCENT] [--sources gzip] [--tree DIRECTORY]`,
 * as root. It makes a Debian tree with mmdebstrap (or takes the one that it is given), packs it as a source, changes about one percent of its
 * bytes above an overlay, and packs the result from the blocks of the source, by mksquashfs with our settings, and by mksquashfs as the
 * original does. All is in the page cache. The trees that come out are compared, so that no packer wins by leaving something out.
 */

const { values: options } = parseArgs({
  options: {
    size: { type: 'string', default: 'full' },
    runs: { type: 'string', default: '1' },
    change: { type: 'string', default: '1' },
    sources: { type: 'string', default: 'gzip,zstd' },
    tree: { type: 'string' },
  },
});

/** What is installed: `full` has about a gigabyte, with a kernel and a compiler. */
const PACKAGES: Record<string, string> = {
  full: 'linux-image-amd64,initramfs-tools,zstd,openssh-server,python3,build-essential,git,sudo',
  small: 'openssh-server',
};
/** Sources, and what mksquashfs packs results with: as the original does, and by our settings. */
const SOURCES = [
  { compression: 'gzip', plain: '-comp gzip', tuned: '-comp gzip -Xcompression-level 6', level: 6 },
  { compression: 'zstd', plain: '-comp zstd', tuned: '-comp zstd -Xcompression-level 3', level: 3 },
];

/** Files that are removed. */
const REMOVED = 20;

interface Cost {
  seconds: number;
  /** Bytes of the new image. */
  bytes: number;
  /** Bytes that go to the store; it copies the others itself. */
  sent: number;
  /** Peak of the resident memory, bytes. */
  memory: number;
  /** Bytes that were taken from the source as they were. */
  reused: number;
  /** Seconds of each stage, where the packer tells. */
  stages: Record<string, number>;
}

const print = (line: string) => process.stdout.write(`${line}\n`);
const mib = (bytes: number) => (bytes / 1024 / 1024).toFixed(1);

function* files(directory: string): Generator<string, void, void> {
  for (const entry of readdirSync(directory, { withFileTypes: true }).toSorted((a, b) => (a.name < b.name ? -1 : 1))) {
    const place = path.join(directory, entry.name);
    if (entry.isDirectory()) yield* files(place);
    else if (entry.isFile()) yield place;
  }
}

/** Bytes that compress by about a half, others for each seed. */
function content(seed: string, length: number): Buffer {
  const parts = Array.from({ length: Math.ceil(length / 64) }, (_, index) =>
    Buffer.concat([createHash('sha256').update(`${seed} ${index}`).digest(), Buffer.alloc(32, index)]),
  );
  return Buffer.concat(parts).subarray(0, length);
}

/** Changes files here and there, by their names, until so many percent of the bytes of a tree are others; removes some. */
function change(root: string, percent: number): { changed: number; bytes: number; total: number } {
  const order = (file: string) => createHash('sha256').update(file.slice(root.length)).digest('hex');
  const all = [...files(root)].map((file) => ({ file, size: statSync(file).size, order: order(file) }));
  const total = all.reduce((sum, { size }) => sum + size, 0);
  const candidates = all
    .filter(({ size }) => size > 0 && size < total / 500)
    .toSorted((a, b) => (a.order < b.order ? -1 : 1));
  let [changed, bytes] = [0, 0];
  for (const { file, size } of candidates.slice(REMOVED)) {
    if (bytes >= (total * percent) / 100) break;
    overwrite(file, size);
    changed++;
    bytes += size;
  }
  for (const { file } of candidates.slice(0, REMOVED)) rmSync(file);
  return { changed, bytes, total };
}

function overwrite(file: string, size: number): void {
  const fd = openSync(file, 'r+');
  try {
    writeSync(fd, content(file, Math.max(size, fstatSync(fd).size)));
  } finally {
    closeSync(fd);
  }
}

/** Runs a program to its end, and looks at its memory meanwhile. */
async function measure(command: string, args: string[]): Promise<{ seconds: number; memory: number; stdout: string }> {
  const started = performance.now();
  const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'inherit'] });
  let memory = 0;
  const look = setInterval(() => {
    memory = Math.max(memory, peakOf(child.pid!));
  }, 20);
  try {
    const chunks: Buffer[] = [];
    child.stdout.on('data', (chunk: Buffer) => chunks.push(chunk));
    const code = await new Promise((resolve) => child.on('close', resolve));
    if (code !== 0) throw new Error(`${command} ended with ${code}`);
    return { seconds: (performance.now() - started) / 1000, memory, stdout: Buffer.concat(chunks).toString() };
  } finally {
    clearInterval(look);
  }
}

/** Peak of the resident memory of a process, bytes; 0 when it is gone. */
function peakOf(pid: number): number {
  try {
    const kib = /^VmHWM:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1];
    return Number(kib ?? 0) * 1024;
  } catch {
    return 0;
  }
}

async function mksquashfs(lab: Lab, overlay: Overlay, output: string, settings: string): Promise<Cost> {
  rmSync(lab.at(output), { force: true });
  const args = [overlay.merged, lab.at(output), '-noappend', '-quiet', '-no-progress', ...settings.split(' ')];
  const { seconds, memory } = await measure('mksquashfs', args);
  const bytes = statSync(lab.at(output)).size;
  return { seconds, memory, bytes, sent: bytes, reused: 0, stages: {} };
}

async function delta(lab: Lab, source: string, overlay: Overlay, output: string, level: number): Promise<Cost> {
  rmSync(lab.at(output), { force: true });
  const hooks = path.resolve(import.meta.dirname, '../test/support/run-typescript.mjs');
  const program = path.resolve(import.meta.dirname, 'pack-delta.ts');
  const { merged, upper, index } = overlay;
  const args = [lab.at(source), merged, upper, index, lab.at(output), String(level)];
  const { stdout } = await measure(process.execPath, ['--no-warnings', '--import', hooks, program, ...args]);
  const { seconds, memory, sent, report } = JSON.parse(stdout) as Cost & { report: DeltaReport };
  return { seconds, memory, bytes: report.bytes, sent, reused: report.reusedBytes, stages: report.seconds };
}

/** The run with the median of seconds; the peak of memory of all. */
async function median(pack: () => Promise<Cost>): Promise<Cost> {
  const costs: Cost[] = [];
  for (let run = 0; run < Number(options.runs); run++) costs.push(await pack());
  const sorted = costs.toSorted((a, b) => a.seconds - b.seconds);
  return { ...sorted[Math.floor(sorted.length / 2)]!, memory: Math.max(...costs.map(({ memory }) => memory)) };
}

/** Measures a packer, and prints what it cost. */
async function printed(name: string, pack: () => Promise<Cost>): Promise<Cost> {
  const cost = await median(pack);
  const { seconds, bytes, sent, memory, reused } = cost;
  const columns = [
    `${seconds.toFixed(2)} s`,
    `${mib(bytes)} MiB`,
    `${mib(sent)} MiB sent`,
    `${mib(reused)} MiB reused`,
    `${mib(memory)} MiB memory`,
  ];
  print(`${name.padEnd(30)}${columns.map((column) => column.padStart(20)).join('')}`);
  const stages = Object.entries(cost.stages).map(([stage, time]) => `${stage} ${time.toFixed(2)} s`);
  if (stages.length > 0) print(`  ${stages.join(', ')}`);
  return cost;
}

async function compare(lab: Lab, { compression, plain, tuned, level }: (typeof SOURCES)[number]): Promise<void> {
  lab.pack('root', 'source', plain);
  const costs = await lab.withOverlay('source', async (overlay) => {
    const { changed, bytes, total } = change(overlay.merged, Number(options.change));
    print(`\n${compression}: source of ${mib(statSync(lab.at('source')).size)} MiB, ${mib(total)} MiB unpacked`);
    print(`changed ${changed} files of ${mib(bytes)} MiB, removed ${REMOVED}`);
    return {
      delta: await printed('from the blocks of the source', () => delta(lab, 'source', overlay, 'delta', level)),
      tuned: await printed('mksquashfs, our settings', () => mksquashfs(lab, overlay, 'tuned', tuned)),
      default: await printed('mksquashfs, its defaults', () => mksquashfs(lab, overlay, 'default', plain)),
    };
  });
  const differences = lab.differences('tuned', 'delta');
  if (differences.length > 0) throw new Error(`the images differ:\n${differences.slice(0, 20).join('\n')}`);
  const suffix = compression === 'gzip' ? '' : `-${compression}`;
  print(`ratio delta-vs-mksquashfs-default${suffix} ${(costs.default.seconds / costs.delta.seconds).toFixed(1)}`);
  print(`ratio delta-vs-mksquashfs-tuned${suffix} ${(costs.tuned.seconds / costs.delta.seconds).toFixed(1)}`);
}

const packages = PACKAGES[options.size];
if (!packages) throw new Error(`--size is ${Object.keys(PACKAGES).join(' or ')}`);
const lab = new Lab();
try {
  print(options.tree ? `the tree is ${options.tree}` : `making a tree of Debian packages: ${packages}`);
  if (options.tree) lab.sh(`mkdir root; mount --bind '${path.resolve(options.tree)}' root`);
  else lab.sh(`mmdebstrap --quiet --mode=root --variant=apt --include=${packages} bookworm root`);
  for (const source of SOURCES) if (options.sources.split(',').includes(source.compression)) await compare(lab, source);
} finally {
  lab.stop();
}
