import { packDelta } from '../src/worker/squashfs/delta.js';

/*
 * Packs an overlay in a process of its own, as a worker does, and prints what that took. Arguments: source, merged, upper, index, output and
 * the level of compression.
 */

const [source, merged, upper, index, output, level] = process.argv.slice(2) as string[];
const started = performance.now();
const report = await packDelta({
  source: source!,
  overlay: { merged: merged!, upper: upper!, index: index! },
  output: output!,
  level: Number(level),
  processors: 0,
  signal: new AbortController().signal,
});
const seconds = (performance.now() - started) / 1000;
// maxRSS is in KiB.
const memory = process.resourceUsage().maxRSS * 1024;
process.stdout.write(JSON.stringify({ seconds, memory, bytes: report.bytes, report }));
