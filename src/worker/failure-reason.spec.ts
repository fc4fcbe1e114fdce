import { ArtifactStoreFailure } from '../artifacts/artifact-store.js';
import { failureCode } from './failure-reason.js';
import { JobFailure } from './job-failure.js';

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
