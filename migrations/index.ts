import { RecordsAndJobs1795460400000 } from './1795460400000-records-and-jobs.js';

/** Every migration, oldest first. A list, since globs differ between source and build. */
export const migrations = [RecordsAndJobs1795460400000];
