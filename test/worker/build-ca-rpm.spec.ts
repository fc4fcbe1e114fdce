import { execFileSync } from 'node:child_process';
import { chmodSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import type { CreateSpec } from '../../src/protocol/job-spec.js';
import { JobDirectory } from '../../src/worker/job-directory.js';
import { buildCaRpm } from '../../src/worker/phases/build-ca-rpm.js';
import type { PhaseContext } from '../../src/worker/phases/phase.js';
import { aCreateSpec } from '../support/job-spec.js';

const CERTIFICATE = '-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n';

let directory: JobDirectory;
let root: string;

beforeEach(async () => {
  directory = new JobDirectory(mkdtempSync(path.join(tmpdir(), 'ims-ca-')));
  mkdirSync(directory.recipe);
  const job = aCreateSpec({ ca_certificate: CERTIFICATE });
  await buildCaRpm({ job, directory, log: () => {} } as unknown as PhaseContext<CreateSpec>);
  root = path.join(directory.path, 'root');
  for (const name of ['bin', 'dev']) mkdirSync(path.join(root, name), { recursive: true });
  execFileSync('cp', ['/usr/bin/busybox', path.join(root, 'bin/sh')]);
});
afterEach(() => rmSync(directory.path, { recursive: true, force: true }));

const rpm = (...args: string[]) => execFileSync('rpm', ['--dbpath', '/db', ...args], { stdio: 'pipe' }).toString();
const install = () => rpm('--root', root, '--install', '--nodeps', directory.caPackage);

function addUpdater(script: string): void {
  const updater = path.join(root, 'usr/sbin/update-ca-certificates');
  mkdirSync(path.dirname(updater), { recursive: true });
  writeFileSync(updater, `#!/bin/sh\n${script}\n`);
  chmodSync(updater, 0o755);
}

it('the package of the certificate has the name that sites know, and the certificate where SUSE looks for it', () => {
  expect(rpm('-q', '--package', directory.caPackage)).toBe('cray_ca_cert-1.0.1-1.noarch\n');
  install();
  const anchor = path.join(root, 'usr/share/pki/trust/anchors/cray_certificate_authority.crt');
  expect(readFileSync(anchor, 'utf8')).toBe(CERTIFICATE);
});

it('it has the root trust the certificate at once, where the root can', () => {
  addUpdater('echo updated > /updated');
  install();
  expect(readFileSync(path.join(root, 'updated'), 'utf8')).toBe('updated\n');
});

it('it is installed also where that fails', () => {
  addUpdater('echo tried > /tried; exit 1');
  install();
  expect(existsSync(path.join(root, 'tried'))).toBe(true);
  expect(rpm('--root', root, '-q', 'cray_ca_cert')).toBe('cray_ca_cert-1.0.1-1.noarch\n');
});
