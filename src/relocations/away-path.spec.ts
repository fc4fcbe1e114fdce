import { awayPath, homePath, isAway } from './away-path.js';

const ID = '4e78488d-4d92-4675-9d83-97adfc17cb19';

describe('awayPath', () => {
  it.each([
    [0, 's3://b/deleted/i/rootfs'],
    [1, `s3://b/deleted/${ID}/i/rootfs`],
    [2, `s3://b/deleted/${ID}/2/i/rootfs`],
    [3, `s3://b/deleted/${ID}/3/i/rootfs`],
  ])('gives another place for each that is taken: %d', (taken, path) => {
    expect(awayPath('s3://b/i/rootfs', ID, taken)).toBe(path);
    expect(isAway(path)).toBe(true);
  });

  it('puts what lies below deleted/ below it once more', () => {
    expect(awayPath('s3://b/deleted/x', ID, 0)).toBe('s3://b/deleted/deleted/x');
    expect(homePath('s3://b/deleted/deleted/x')).toBe('s3://b/deleted/x');
  });

  it('knows what is at home', () => {
    expect(isAway('s3://b/deletedfoo/x')).toBe(false);
    expect(homePath('s3://b/deletedfoo/x')).toBe('s3://b/deletedfoo/x');
  });
});
