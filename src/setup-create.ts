import { BadConfiguration, loadConfig } from './config/config.js';
import { SystemCommands } from './worker/commands.js';
import { JobFailure } from './worker/job-failure.js';
import { provideKiwi } from './worker/kiwi/kiwi-environment.js';
import { lineLog } from './worker/log.js';

// `npm run setup:create`: makes what the first create job would make, and says at once why where that does not work.
try {
  const { kiwiDir } = loadConfig().jobs.local;
  const python = await provideKiwi(
    kiwiDir,
    new SystemCommands(),
    lineLog((line) => process.stdout.write(line)),
  );
  process.stdout.write(`images can be built: ${python}\n`);
} catch (error) {
  if (!(error instanceof JobFailure) && !(error instanceof BadConfiguration)) throw error;
  process.stderr.write(`${error.message}\n`);
  process.exitCode = 1;
}
