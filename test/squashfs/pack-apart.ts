import { packDelta } from '../../src/worker/squashfs/delta.js';

/*
 * Packs an overlay in a process of its own, as a worker does, which ends where a failure reaches nobody. Arguments: source, merged, upper, index,
 * output, and after how many milliseconds the work is aborted; 0 for never. Prints what became of it.
 */
const [source, merged, upper, index, output, milliseconds] = process.argv.slice(2) as [string, ...string[]];
const abort = new AbortController();
if (Number(milliseconds)) setTimeout(() => abort.abort(new Error('the store is away')), Number(milliseconds));
const resources = { level: 6, processors: 2, memory: 64 << 20 };
const outcome = await packDelta({
  source,
  overlay: { merged: merged!, upper: upper!, index: index! },
  output: output!,
  signal: abort.signal,
  ...resources,
}).then(
  () => 'packed',
  (error: NodeJS.ErrnoException) => error.code ?? error.message,
);
process.stdout.write(outcome);
