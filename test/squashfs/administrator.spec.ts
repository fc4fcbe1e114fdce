import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { canMount, Lab } from '../support/squashfs-lab.js';
import { ODD_TREE } from './odd-tree.js';

/** A day of an administrator in that tree. */
const CHANGES = String.raw`
  rm -r opt/opaque; mkdir opt/opaque; echo new > opt/opaque/three
  mv opt/renamed opt/moved; echo more >> opt/moved/f
  echo appended >> opt/linked/a
  chmod 0600 opt/plain; chown 7:8 opt/suid; chmod 4755 opt/suid
  rm usr/bin/other; rm -r etc/apt; mkdir etc/apt; echo x > etc/apt/y
  rm etc/hostname; mkdir etc/hostname; rm -r etc/cron.daily; ln -s /x etc/cron.daily
  touch -d '2010-01-02 03:04:05' opt/d1 opt/x1; setfattr -n user.color -v red opt/x1; setfattr -x trusted.kept opt/x1
  setcap cap_net_raw+ep opt/plain; setcap -r opt/capable
  printf Z | dd of=opt/sparse bs=1 seek=50000000 conv=notrunc status=none
  mknod opt/new c 1 5; mkfifo opt/new-fifo; ln opt/times opt/times-link; ln opt/link opt/link-link
  mv usr/bin/large usr/bin/renamed; cp -a usr/bin/renamed usr/bin/copy; mv opt/d1/file-7 etc/file-7
  echo y > 'opt/naïve file ☃'; truncate -s 0 opt/acl; rm opt/null; : > opt/null; rm opt/d1/file-3*
  chown -R 5000:5000 opt/d2; mv opt/fifo opt/d2/; chmod 2775 opt/d2
  touch -h -d '2005-05-05' opt/dangling`;

(canMount() ? describe : describe.skip)('a day of an administrator', () => {
  let lab: Lab;
  beforeAll(() => {
    lab = new Lab();
    lab.sh(`mkdir root; cd root; ${ODD_TREE}`);
  });
  afterAll(() => lab.stop());

  it.each(['gzip', 'zstd', 'xz', 'lz4', 'lzo'])(
    'is packed as mksquashfs packs it: %s',
    async (compression) => {
      lab.pack('root', 'source', `-comp ${compression}`);
      const report = await lab.withOverlay('source', (overlay) => {
        lab.sh(`cd overlay/merged; ${CHANGES}`);
        lab.pack('overlay/merged', 'full', `-comp ${compression}`);
        return lab.delta('source', overlay, 'delta');
      });
      expect(lab.differences('full', 'delta')).toEqual([]);
      const list = (image: string) => lab.sh(`unsquashfs -lls ${image}`).replaceAll(image, '');
      expect(list('delta')).toBe(list('full'));
      // The renamed file, its copy and all but a few of the small files stand in the source.
      expect(report.reusedBytes).toBeGreaterThan(report.newBytes);
      expect(report.newFiles).toBeLessThan(12);
    },
    120_000,
  );
});
