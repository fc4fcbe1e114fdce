import { ARTIFACT_TYPE } from '../protocol/image-manifest.js';
import { BadManifest, locationOf, parseManifest, rootfsOf } from './manifest.js';

const rootfs = {
  link: { path: 's3://boot-images/i/rootfs', etag: 'e', type: 's3' },
  md5: 'm',
  type: ARTIFACT_TYPE.rootfs,
};
const parse = (value: unknown) => parseManifest(Buffer.from(typeof value === 'string' ? value : JSON.stringify(value)));

describe('parseManifest', () => {
  it('reads a manifest', () => {
    const manifest = parse({ version: '1.0', created: 'then', artifacts: [rootfs], more: 1 });
    expect(locationOf(rootfsOf(manifest))).toEqual({ bucket: 'boot-images', key: 'i/rootfs' });
    expect(manifest).toEqual({ version: '1.0', created: 'then', artifacts: [rootfs] });
  });

  it.each([
    ['nonsense', /not JSON/],
    [[], /JSON object/],
    [{ version: '2.0', artifacts: [rootfs] }, /version/],
    [{ version: '1.0', artifacts: {} }, /artifacts must be a list/],
    [{ version: '1.0', artifacts: [] }, /exactly one .* has 0/],
    [{ version: '1.0', artifacts: [rootfs, rootfs] }, /has 2/],
    [{ version: '1.0', artifacts: [rootfs, null] }, /artifacts\[1\] must be an object/],
    [{ version: '1.0', artifacts: [{ ...rootfs, link: null }] }, /artifacts\[0\]\.link/],
    [{ version: '1.0', artifacts: [{ ...rootfs, type: 5 }] }, /artifacts\[0\]\.type/],
    [{ version: '1.0', artifacts: [{ ...rootfs, link: { ...rootfs.link, path: '/x' } }] }, /s3:\/\/<bucket>/],
    [{ version: '1.0', artifacts: [{ ...rootfs, link: { ...rootfs.link, type: 'ftp' } }] }, /type must be s3/],
  ])('says what is wrong with %j', (value, why) => {
    expect(() => parse(value)).toThrow(BadManifest);
    expect(() => parse(value)).toThrow(why);
  });
});
