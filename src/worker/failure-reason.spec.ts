import { tmpdir } from 'node:os';
import { ArtifactStoreFailure } from '../artifacts/artifact-store.js';
import { CommandFailed } from './commands.js';
import { Disk } from './disk.js';
import { failureCode, failureReason } from './failure-reason.js';
import { JobFailure } from './job-failure.js';

const REMEDY = {
  machine: 'free some space (old jobs, other files), or give the server a larger STATE_DIR, and start the job again',
  pod: 'start the job again with a larger build_env_size',
};

describe.each(['machine', 'pod'] as const)('a full disk of a %s says how the job gets a larger one', (place) => {
  const full = `the disk on which the job works is full: ${REMEDY[place]}`;
  /** A disk on which nothing is free. */
  const disk = new Disk(tmpdir(), Number.MAX_SAFE_INTEGER, place);

  it('where a system call says so', () => {
    const cause = Object.assign(new Error('write'), { code: 'ENOSPC' });
    expect(failureReason(new Error('cannot pack', { cause }), 'finish', place)).toBe(full);
  });

  it('where a command says so', () => {
    const end = { code: 1, signal: null, stderr: 'cp: error writing: No space left on device\n' };
    expect(failureReason(new CommandFailed('cp', end), 'finish', place)).toBe(full);
  });

  it('where it is looked at', async () => {
    await expect(disk.expectFree(0)).rejects.toThrow(full);
  });

  it('before something is written that has no room', async () => {
    await expect(disk.expectFree(3 << 20)).rejects.toThrow(
      `the job needs 3 MiB on its disk, and 0 MiB are free: ${REMEDY[place]}`,
    );
  });
});

describe('failureCode', () => {
  it.each([
    ['what the failure itself says', new JobFailure('over', { code: 'shell_idle' }), 'shell_idle'],
    ['a full disk', Object.assign(new Error('write'), { code: 'ENOSPC' }), 'disk_full'],
    [
      'a full disk behind it',
      new Error('copy', { cause: Object.assign(new Error(), { code: 'EDQUOT' }) }),
      'disk_full',
    ],
    ['the store', new ArtifactStoreFailure('away'), 'artifact_store'],
    ['the phase', new JobFailure('something else'), 'packaging'],
    ['the phase, where nobody expected it', new TypeError('x'), 'packaging'],
  ])('names %s', (_what, error, code) => {
    expect(failureCode(error, 'finish')).toBe(code);
  });
});
