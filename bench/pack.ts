import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  closeSync,
  fstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import path from 'node:path';
import { parseArgs } from 'node:util';
import type { Overlay } from '../src/worker/squashfs/merged-tree.js';
import type { ImageReport } from '../src/worker/squashfs/pack-report.js';
import { Lab } from '../test/support/squashfs-lab.js';

/*
 * What packing a customized image costs: `npm run bench:pack -- [--size small] [--runs N] [--change PERCENT] [--sources gzip,xz,…] [--tree DIRECTORY]
 * [--files N]`, as root. It makes a Debian tree with mmdebstrap (or takes the one that it is given, or makes one of so many small files), packs it
 * as a source, changes about one percent of its bytes above an overlay, and packs the result from the blocks of the source, all of it by our own
 * packer, and by mksquashfs: with our settings, and as the original does. Then it packs the tree itself, as a build leaves it. All is in the page cache. The trees that come
 * out are compared, so that no packer wins by leaving something out. Last comes what no packer can be faster than: the new image copied by
 * cp, and its md5.
 */

const { values: options } = parseArgs({
  options: {
    size: { type: 'string', default: 'full' },
    runs: { type: 'string', default: '1' },
    change: { type: 'string', default: '1' },
    sources: { type: 'string', default: 'gzip,zstd' },
    tree: { type: 'string' },
    files: { type: 'string' },
  },
});

/** What is installed: `full` has about a gigabyte, with a kernel and a compiler. */
const PACKAGES: Record<string, string> = {
  full: 'linux-image-amd64,initramfs-tools,zstd,openssh-server,python3,build-essential,git,sudo',
  small: 'openssh-server',
};
/** Sources, and what mksquashfs packs results with: as the original does, and by our settings. Level 0 is the default of the compression. */
const SOURCES = [
  { compression: 'gzip', plain: '-comp gzip', tuned: '-comp gzip -Xcompression-level 6 -mem 512M', level: 6 },
  { compression: 'zstd', plain: '-comp zstd', tuned: '-comp zstd -Xcompression-level 3 -mem 512M', level: 3 },
  { compression: 'xz', plain: '-comp xz', tuned: '-comp xz -mem 512M', level: 0 },
  { compression: 'lzo', plain: '-comp lzo', tuned: '-comp lzo -mem 512M', level: 0 },
  { compression: 'lz4', plain: '-comp lz4', tuned: '-comp lz4 -mem 512M', level: 0 },
];

/** Files that are removed. */
const REMOVED = 20;

type Packing = (typeof SOURCES)[number];

interface Cost {
  seconds: number;
  /** Seconds of all processors together. */
  processor: number;
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

type Used = Pick<Cost, 'memory' | 'processor'>;

/** Runs a program to its end, and looks at its memory meanwhile. */
async function measure(command: string, args: string[]): Promise<Used & { seconds: number; stdout: string }> {
  const started = performance.now();
  const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'inherit'] });
  let used: Used = { memory: 0, processor: 0 };
  const look = setInterval(() => {
    used = usedBy(child.pid!) ?? used;
  }, 20);
  try {
    const chunks: Buffer[] = [];
    child.stdout.on('data', (chunk: Buffer) => chunks.push(chunk));
    const code = await new Promise((resolve) => child.on('close', resolve));
    if (code !== 0) throw new Error(`${command} ended with ${code}`);
    return { seconds: (performance.now() - started) / 1000, ...used, stdout: Buffer.concat(chunks).toString() };
  } finally {
    clearInterval(look);
  }
}

/** What a process has used: the peak of its resident memory in bytes, and seconds of processors. Null when it is gone. */
function usedBy(pid: number): Used | null {
  const TICKS = 100;
  try {
    const kib = /^VmHWM:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1];
    if (kib === undefined) return null;
    // proc(5): the name of the program, in parentheses, is the only field that may hold spaces.
    const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ').at(-1)!.split(' ');
    return { memory: Number(kib) * 1024, processor: (Number(fields[11]) + Number(fields[12])) / TICKS };
  } catch {
    return null;
  }
}

async function mksquashfs(lab: Lab, root: string, output: string, settings: string): Promise<Cost> {
  rmSync(lab.at(output), { force: true });
  const args = [root, lab.at(output), '-noappend', '-quiet', '-no-progress', ...settings.split(' ')];
  const { stdout: _, ...used } = await measure('mksquashfs', args);
  const bytes = statSync(lab.at(output)).size;
  return { ...used, bytes, sent: bytes, reused: 0, stages: {} };
}

/** Packs by our own packers, in a process of its own. */
async function own(lab: Lab, output: string, ...args: string[]): Promise<Cost> {
  rmSync(lab.at(output), { force: true });
  const program = path.resolve(import.meta.dirname, 'pack-tree.mjs');
  const { stdout } = await measure(process.execPath, ['--no-warnings', program, ...args]);
  const { report, ...used } = JSON.parse(stdout) as Cost & { report: ImageReport };
  return { ...used, bytes: report.bytes, reused: report.reusedBytes, stages: report.seconds };
}

function delta(lab: Lab, source: string, { merged, upper, index }: Overlay, output: string, level: number) {
  return own(lab, output, 'delta', lab.at(source), merged, upper, index, lab.at(output), String(level));
}

function full(lab: Lab, root: string, output: string, { compression, level }: Packing) {
  return own(lab, output, 'full', root, lab.at(output), compression, String(level));
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
  const { seconds, processor, bytes, sent, memory, reused } = cost;
  const columns = [
    `${seconds.toFixed(2)} s`,
    `${processor.toFixed(2)} s of processors`,
    `${mib(bytes)} MiB`,
    `${mib(sent)} MiB sent`,
    `${mib(reused)} MiB reused`,
    `${mib(memory)} MiB memory`,
  ];
  print(`${name.padEnd(30)}${columns.map((column) => column.padStart(22)).join('')}`);
  const stages = Object.entries(cost.stages).map(([stage, time]) => `${stage} ${time.toFixed(2)} s`);
  if (stages.length > 0) print(`  ${stages.join(', ')}`);
  return cost;
}

async function compare(lab: Lab, packing: Packing): Promise<void> {
  const { compression, plain, tuned, level } = packing;
  lab.pack('root', 'source', plain);
  const costs = await lab.withOverlay('source', async (overlay) => {
    const { changed, bytes, total } = change(overlay.merged, Number(options.change));
    print(`\n${compression}: source of ${mib(statSync(lab.at('source')).size)} MiB, ${mib(total)} MiB unpacked`);
    print(`changed ${changed} files of ${mib(bytes)} MiB, removed ${REMOVED}`);
    return {
      delta: await printed('from the blocks of the source', () => delta(lab, 'source', overlay, 'delta', level)),
      full: await printed('all of it, by our packer', () => full(lab, overlay.merged, 'full', packing)),
      tuned: await printed('mksquashfs, our settings', () => mksquashfs(lab, overlay.merged, 'tuned', tuned)),
      default: await printed('mksquashfs, its defaults', () => mksquashfs(lab, overlay.merged, 'default', plain)),
    };
  });
  for (const image of ['delta', 'full']) refuseDifferences(lab, 'tuned', image);
  const built = {
    full: await printed('a plain tree, by our packer', () => full(lab, lab.at('root'), 'full', packing)),
    tuned: await printed('a plain tree, mksquashfs', () => mksquashfs(lab, lab.at('root'), 'tuned', tuned)),
  };
  refuseDifferences(lab, 'tuned', 'full');
  const floor = copyAndDigest(lab, 'delta');
  print(`cp and md5sum of the new image     ${floor.toFixed(2)} s`);
  const suffix = compression === 'gzip' ? '' : `-${compression}`;
  const ratio = (name: string, other: number, ours: number) =>
    print(`ratio ${name}${suffix} ${(other / ours).toFixed(1)}`);
  ratio('delta-vs-mksquashfs-default', costs.default.seconds, costs.delta.seconds);
  ratio('delta-vs-mksquashfs-tuned', costs.tuned.seconds, costs.delta.seconds);
  ratio('delta-vs-mksquashfs-tuned-processor', costs.tuned.processor, costs.delta.processor);
  ratio('full-vs-mksquashfs-tuned', built.tuned.seconds, built.full.seconds);
}

function refuseDifferences(lab: Lab, expected: string, image: string): void {
  const differences = lab.differences(expected, image);
  if (differences.length > 0) throw new Error(`the images differ:\n${differences.slice(0, 20).join('\n')}`);
}

/** Seconds to copy a file that is in the page cache, and to take its md5. */
function copyAndDigest(lab: Lab, image: string): number {
  const started = performance.now();
  lab.sh(`cp --reflink=never ${image} copied; md5sum ${image}; rm copied`);
  return (performance.now() - started) / 1000;
}

/** A tree of small files, a hundred in a directory. */
function makeFiles(root: string, count: number): void {
  for (let number = 0; number < count; number++) {
    const directory = path.join(root, `directory-${Math.floor(number / 100)}`);
    if (number % 100 === 0) mkdirSync(directory);
    writeFileSync(path.join(directory, `file-${number}`), content(`${number}`, (number * 37) % 5000));
  }
}

function makeTree(lab: Lab): void {
  if (options.files) return makeFiles(lab.empty('root'), Number(options.files));
  print(options.tree ? `the tree is ${options.tree}` : `making a tree of Debian packages: ${packages}`);
  if (options.tree) lab.sh(`mkdir root; mount --bind '${path.resolve(options.tree)}' root`);
  else lab.sh(`mmdebstrap --quiet --mode=root --variant=apt --include=${packages} bookworm root`);
}

const packages = PACKAGES[options.size];
if (!packages) throw new Error(`--size is ${Object.keys(PACKAGES).join(' or ')}`);
const lab = new Lab();
try {
  makeTree(lab);
  for (const source of SOURCES) if (options.sources.split(',').includes(source.compression)) await compare(lab, source);
} finally {
  lab.stop();
}
