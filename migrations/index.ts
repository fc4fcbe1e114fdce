import { RecordsAndJobs1795460400000 } from './1795460400000-records-and-jobs.js';
import { RecipesAndRelocations1795471200000 } from './1795471200000-recipes-and-relocations.js';
import { JobEvents1795475000000 } from './1795475000000-job-events.js';
import { ShellDeadlines1795478000000 } from './1795478000000-shell-deadlines.js';
import { RemoteBuildNodes1795481000000 } from './1795481000000-remote-build-nodes.js';
import { FiltersAndKeys1795488000000 } from './1795488000000-filters-and-keys.js';
import { RunnerLeases1795490000000 } from './1795490000000-runner-leases.js';
import { RecipesOfJobs1795492000000 } from './1795492000000-recipes-of-jobs.js';
import { PackingReports1795494000000 } from './1795494000000-packing-reports.js';
import { JobTokens1795496000000 } from './1795496000000-job-tokens.js';
import { StatusCodes1795498000000 } from './1795498000000-status-codes.js';

/** Every migration, oldest first. A list, since globs differ between source and build. */
export const migrations = [
  RecordsAndJobs1795460400000,
  RecipesAndRelocations1795471200000,
  JobEvents1795475000000,
  ShellDeadlines1795478000000,
  RemoteBuildNodes1795481000000,
  FiltersAndKeys1795488000000,
  RunnerLeases1795490000000,
  RecipesOfJobs1795492000000,
  PackingReports1795494000000,
  JobTokens1795496000000,
  StatusCodes1795498000000,
];
