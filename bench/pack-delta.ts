import { choosePartSize } from '../src/artifacts/part-layout.js';
import { planParts } from '../src/worker/part-plan.js';
import { packPlan } from '../src/worker/squashfs/delta.js';
import { DeltaPlan } from '../src/worker/squashfs/delta-plan.js';
import { readMergedTree } from '../src/worker/squashfs/merged-tree.js';

/*
 * Packs an overlay in a process of its own, as a worker does, and prints what that took. Arguments: source, merged, upper, index, output and
 * the level of compression.
 */

const [source, merged, upper, index, output, level] = process.argv.slice(2) as string[];
const started = performance.now();
const plan = await DeltaPlan.make(
  { source: source!, level: Number(level), signal: new AbortController().signal },
  (image) => readMergedTree(image, { merged: merged!, upper: upper!, index: index! }),
);
const report = await packPlan(plan, { output: output!, processors: 0 });
const seconds = (performance.now() - started) / 1000;
// maxRSS is in KiB.
const memory = process.resourceUsage().maxRSS * 1024;
const copied = planParts(plan.copied, choosePartSize(report.bytes)).filter((part) => part.source !== null);
const sent = report.bytes - copied.reduce((sum, { start, end }) => sum + end - start + 1, 0);
plan.close();
process.stdout.write(JSON.stringify({ seconds, memory, sent, report }));
