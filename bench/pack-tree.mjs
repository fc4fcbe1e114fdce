import { choosePartSize } from '../dist/src/artifacts/part-layout.js';
import { copiedPartSize, planParts } from '../dist/src/worker/part-plan.js';
import { packPlan } from '../dist/src/worker/squashfs/delta.js';
import { DeltaPlan } from '../dist/src/worker/squashfs/delta-plan.js';
import { packFull } from '../dist/src/worker/squashfs/full.js';
import { readMergedTree } from '../dist/src/worker/squashfs/merged-tree.js';

/*
 * Packs an image root in a process of its own, as a worker does, and prints what that took. It runs what was compiled, so that nothing but packing
 * takes time and memory. Arguments: `delta`, source, merged, upper, index, output and the level of compression; or `full`, directory,
 * output, compression and level; 0 for its default.
 */

/** As JOB_PACK_MEMORY_MIB has it. */
const RESOURCES = { processors: 0, memory: 256 << 20 };
const { signal } = new AbortController();

/** Returns also how many bytes are sent to a store that copies the others itself. */
async function packDelta([source, merged, upper, index, output, level]) {
  const plan = await DeltaPlan.make({ source, level: Number(level) || null, signal }, (image) =>
    readMergedTree(image, { merged, upper, index }),
  );
  const report = await packPlan(plan, { output, ...RESOURCES });
  plan.close();
  const copied = planParts(plan.copied, copiedPartSize(choosePartSize(report.bytes))).filter(
    (part) => part.source !== null,
  );
  return { report, sent: report.bytes - copied.reduce((sum, { start, end }) => sum + end - start + 1, 0) };
}

async function packWhole([root, output, compression, level]) {
  const target = { compression, level: Number(level) || null, blockSize: 131_072 };
  const report = await packFull({ root, pristine: null, output, target, signal, ...RESOURCES });
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
