import { choosePartSize } from '../src/artifacts/part-layout.js';
import type { Compression } from '../src/protocol/job-spec.js';
import { planParts } from '../src/worker/part-plan.js';
import { packPlan } from '../src/worker/squashfs/delta.js';
import { DeltaPlan } from '../src/worker/squashfs/delta-plan.js';
import { packFull } from '../src/worker/squashfs/full.js';
import { readMergedTree } from '../src/worker/squashfs/merged-tree.js';
import type { ImageReport } from '../src/worker/squashfs/pack-report.js';

/*
 * Packs an image root in a process of its own, as a worker does, and prints what that took. Arguments: `delta`, source, merged, upper, index,
 * output and the level of compression; or `full`, directory, output, compression and level.
 */

/** As JOB_PACK_MEMORY_MIB has it. */
const RESOURCES = { processors: 0, memory: 256 << 20 };
const { signal } = new AbortController();

/** Returns also how many bytes are sent to a store that copies the others itself. */
async function packDelta(args: string[]): Promise<{ report: ImageReport; sent: number }> {
  const [source, merged, upper, index, output, level] = args as [string, string, string, string, string, string];
  const plan = await DeltaPlan.make({ source, level: Number(level), signal }, (image) =>
    readMergedTree(image, { merged, upper, index }),
  );
  const report = await packPlan(plan, { output, ...RESOURCES });
  plan.close();
  const copied = planParts(plan.copied, choosePartSize(report.bytes)).filter((part) => part.source !== null);
  return { report, sent: report.bytes - copied.reduce((sum, { start, end }) => sum + end - start + 1, 0) };
}

async function packWhole(args: string[]): Promise<{ report: ImageReport; sent: number }> {
  const [root, output, compression, level] = args as [string, string, Compression, string];
  const target = { compression, level: Number(level), blockSize: 131_072 };
  const report = await packFull({ root, output, target, signal, ...RESOURCES });
  return { report, sent: report.bytes };
}

const [what, ...args] = process.argv.slice(2);
const started = performance.now();
const { report, sent } = await (what === 'delta' ? packDelta(args) : packWhole(args));
const seconds = (performance.now() - started) / 1000;
// maxRSS is in KiB, processor times are in microseconds.
const { maxRSS, userCPUTime, systemCPUTime } = process.resourceUsage();
const memory = maxRSS * 1024;
const processor = (userCPUTime + systemCPUTime) / 1e6;
process.stdout.write(JSON.stringify({ seconds, processor, memory, sent, report }));
