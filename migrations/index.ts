import { RecordsAndJobs1795460400000 } from './1795460400000-records-and-jobs.js';
import { JobEvents1795475000000 } from './1795475000000-job-events.js';
import { ShellDeadlines1795478000000 } from './1795478000000-shell-deadlines.js';

/** Every migration, oldest first. A list, since globs differ between source and build. */
export const migrations = [RecordsAndJobs1795460400000, JobEvents1795475000000, ShellDeadlines1795478000000];
