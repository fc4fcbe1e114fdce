import { openSshRelease, sshdConfig, type SshdSettings } from './sshd-config.js';

const SETTINGS: SshdSettings = {
  jobId: '5d3fd3c4-9f43-4b2e-8a34-9d0c39c2b4f1',
  arch: 'x86_64',
  dkms: false,
  jail: false,
  addressFamily: 'inet',
  release: 9.2,
};

const lines = (settings: Partial<SshdSettings> = {}) => sshdConfig({ ...SETTINGS, ...settings }).split('\n');

describe('sshdConfig', () => {
  it('lets in the key of the job only, and forwards nothing', () => {
    expect(lines()).toEqual(
      expect.arrayContaining([
        'PermitRootLogin prohibit-password',
        'PasswordAuthentication no',
        'KbdInteractiveAuthentication no',
        'AllowUsers root',
        'AllowTcpForwarding no',
        'PermitTunnel no',
      ]),
    );
  });

  it('tells the environment in one directive, since sshd ignores a second one', () => {
    const set = (settings: Partial<SshdSettings>) => lines(settings).filter((line) => line.startsWith('SetEnv'));
    expect(set({})).toEqual([
      'SetEnv IMS_JOB_ID=5d3fd3c4-9f43-4b2e-8a34-9d0c39c2b4f1 IMS_ARCH=x86_64 IMS_DKMS_ENABLED=False REMOTE_BUILD_NODE= HISTFILE=/dev/null',
    ]);
    expect(set({ dkms: true, arch: 'aarch64' })[0]).toMatch(/IMS_ARCH=aarch64 IMS_DKMS_ENABLED=True/);
  });

  it('jails into the image root where the job asks for it', () => {
    expect(lines({ jail: true })).toContain('ChrootDirectory /mnt/image/image-root');
    expect(lines().join()).not.toContain('ChrootDirectory');
  });

  it('turns off penalties only where sshd knows them', () => {
    expect(lines({ release: 9.8 })).toContain('PerSourcePenalties no');
    expect(lines({ release: 10.1 })).toContain('PerSourcePenalties no');
    expect(lines().join()).not.toContain('PerSourcePenalties');
  });

  it.each(['x\nPermitEmptyPasswords yes', 'x y', '', '"x"'])('takes no id but a UUID: %j', (jobId) =>
    expect(() => sshdConfig({ ...SETTINGS, jobId })).toThrow(/UUID/),
  );
});

describe('openSshRelease', () => {
  it.each([
    ['OpenSSH_9.2p1 Debian-2+deb12u3, OpenSSL 3.0.14 4 Jun 2024', 9.2],
    ['OpenSSH_10.0p2, OpenSSL 3.5.0', 10],
    ['OpenSSH_for_Elsewhere', 0],
  ])('reads %j', (text, release) => expect(openSshRelease(text)).toBe(release));
});
