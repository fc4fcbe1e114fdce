import { BadJobFilter, parseAge, parseJobFilter } from './job-filter.js';

describe('parseAge', () => {
  it.each([
    ['1d2h', 26 * 60],
    ['2w3d4h5m', 24_725],
    ['0m', 0],
    ['90m', 90],
  ])('%s', (age, minutes) => expect(parseAge(age)).toBe(minutes));

  it.each(['', 'd', '1', '-1d', '1 d', '1D', '1y', '10minutes', '2h1d', '1d1d', '١d', '99999999999d'])(
    'refuses %j',
    (age) => {
      expect(() => parseAge(age)).toThrow(BadJobFilter);
    },
  );
});

describe('parseJobFilter', () => {
  const now = new Date('2026-11-23T00:00:00Z');

  it('means all jobs when nothing is asked for', () => expect(parseJobFilter({}, now)).toEqual({}));

  it('joins repeated parameters', () => {
    expect(parseJobFilter({ status: ['error', 'SUCCESS'], job_type: 'create' }, now)).toEqual({
      statuses: ['error', 'success'],
      jobTypes: ['create'],
    });
  });

  it('turns an age into a moment', () => {
    expect(parseJobFilter({ age: '1w' }, now).createdBefore).toEqual(new Date('2026-11-16T00:00:00Z'));
    expect(parseJobFilter({ age: '999999999w' }, now).createdBefore!.getTime()).toBe(-8.64e15);
  });

  it.each([
    { status: '' },
    { status: ['success', 'bogus'] },
    { job_type: 'CREATE' },
    { job_type: '' },
    { age: ['1d', '2d'] },
  ])('refuses %j', (query) => expect(() => parseJobFilter(query, now)).toThrow(BadJobFilter));
});
