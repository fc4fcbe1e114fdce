import { execFileSync, spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PackageSigner, packageOfKey } from './package-signer.js';
import { encodeRpm } from './rpm-package.js';

const CONTENT = Buffer.from('-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n');
const PATH = '/usr/share/pki/trust/anchors/site.crt';

function aPackage(content = CONTENT, signer: PackageSigner | null = null): Promise<Buffer> {
  const built = new Date('2026-01-02T03:04:05Z');
  const rpm = {
    name: 'site_ca',
    version: '1.0.1',
    release: '1',
    summary: 'Certificate of the site CA',
    file: { path: PATH, content },
    afterInstall: 'echo installed > /after-install\n',
    built,
  };
  return encodeRpm(rpm, signer);
}

let directory: string;
let file: string;

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'ims-rpm-'));
  file = join(directory, 'site_ca.rpm');
});
afterEach(() => rmSync(directory, { recursive: true, force: true }));

const rpm = (...args: string[]) => execFileSync('rpm', ['--dbpath', '/db', ...args], { stdio: 'pipe' }).toString();

describe('a package that we make', () => {
  it('is whole for rpm: header and payload have the digests that it says', async () => {
    writeFileSync(file, await aPackage());
    const report = rpm('--checksig', '--verbose', file);
    expect(report).toMatch(/Header SHA256 digest: OK/);
    expect(report).toMatch(/Header SHA1 digest: OK/);
    expect(report).toMatch(/Payload SHA256 digest: OK/);
    expect(report).toMatch(/MD5 digest: OK/);
  });

  it('is refused by rpm where a byte of it was changed', async () => {
    const damaged = await aPackage();
    damaged[damaged.length - 20]! ^= 1;
    writeFileSync(file, damaged);
    expect(() => rpm('--checksig', file)).toThrow();
  });

  it('says what it is and what it needs', async () => {
    writeFileSync(file, await aPackage());
    const format = '%{NEVRA} %{BUILDTIME} %{SIZE} [%{FILENAMES} %{FILEMODES:perms} %{FILEUSERNAME}]\n';
    expect(rpm('-q', '--package', '--queryformat', format, file)).toBe(
      `site_ca-1.0.1-1.noarch 1767323045 ${CONTENT.length} ${PATH} -rw-r--r-- root\n`,
    );
    expect(rpm('-q', '--package', '--requires', file)).toContain('/bin/sh');
    expect(rpm('-q', '--package', '--provides', file)).toBe('site_ca = 1.0.1-1\n');
  });

  it('installs its file and runs its script', async () => {
    writeFileSync(file, await aPackage());
    const root = join(directory, 'root');
    mkdirSync(join(root, 'bin'), { recursive: true });
    execFileSync('cp', ['/usr/bin/busybox', join(root, 'bin/sh')]);
    rpm('--root', root, '--install', '--nodeps', file);
    expect(readFileSync(join(root, PATH))).toEqual(CONTENT);
    expect(readFileSync(join(root, 'after-install'), 'utf8')).toBe('installed\n');
    expect(rpm('--root', root, '--verify', 'site_ca')).toBe('');
  });

  it.each([0, 1, 3, 4, 100_000])('holds a file of %i bytes', async (size) => {
    writeFileSync(file, await aPackage(Buffer.alloc(size, 'x')));
    const cpio = execFileSync('rpm2cpio', [file]);
    expect(cpio.includes(Buffer.alloc(size, 'x'))).toBe(true);
    expect(rpm('--checksig', file)).toContain('digests OK');
  });

  it('is the same whenever it is made', async () => {
    expect(await aPackage()).toEqual(await aPackage());
  });

  it('is signed where a signer is given, and rpm knows by whom', async () => {
    const signer = await PackageSigner.make();
    writeFileSync(file, await aPackage(CONTENT, signer));
    const key = join(directory, 'key.asc');
    writeFileSync(key, signer.publicKey);
    const database = ['--dbpath', join(directory, 'db')];
    const check = () => spawnSync('rpm', [...database, '--checksig', file], { encoding: 'utf8' }).stdout;
    expect(check()).toContain('SIGNATURES NOT OK');
    execFileSync('rpm', [...database, '--import', key], { stdio: 'pipe' });
    expect(check()).toContain('digests signatures OK');
    const name = await packageOfKey(signer.publicKey);
    expect(execFileSync('rpm', [...database, '-q', 'gpg-pubkey'], { encoding: 'utf8' })).toBe(`${name}\n`);
    execFileSync('rpm', [...database, '--erase', '--allmatches', name]);
    expect(check()).toContain('SIGNATURES NOT OK');
  });
});
