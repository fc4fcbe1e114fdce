import { writeFile } from 'node:fs/promises';
import type { CreateSpec } from '../../protocol/job-spec.js';
import { readDescription } from '../recipe/recipe-description.js';
import { PackageSigner } from '../rpm/package-signer.js';
import { encodeRpm, type RpmPackage } from '../rpm/rpm-package.js';
import type { PhaseContext } from './phase.js';

/** Where SUSE's tools look for certificates to trust. */
const ANCHOR = '/usr/share/pki/trust/anchors/cray_certificate_authority.crt';

/**
 * In a root that has no update-ca-certificates yet, the package that brings it runs it. A script that fails would fail the build, where
 * the certificate is in place all the same.
 */
const AFTER_INSTALL = `if command -v update-ca-certificates >/dev/null 2>&1; then
  update-ca-certificates || :
fi
`;

/**
 * Makes a package of the certificate of the site CA, so that the new root trusts the site's repositories from the beginning. Where the
 * recipe has zypper take signed packages only, it is signed by a key of its own, which the root forgets when it is built.
 */
export async function buildCaRpm({ job, directory, log }: PhaseContext<CreateSpec>): Promise<void> {
  if (!job.ca_certificate) return log('the site has no CA certificate: no package is made');
  const { packageManager, checksSignatures } = await readDescription(directory.recipe);
  const signer = checksSignatures && packageManager === 'zypper' ? await PackageSigner.make() : null;
  if (signer) await writeFile(directory.caKey, signer.publicKey);
  const rpm = await encodeRpm(aPackage(job.ca_certificate), signer);
  await writeFile(directory.caPackage, rpm);
  log('packed the certificate of the site CA', { bytes: rpm.length, signed: signer !== null });
}

function aPackage(certificate: string): RpmPackage {
  return {
    name: 'cray_ca_cert',
    version: '1.0.1',
    release: '1',
    summary: 'Certificate of the site CA',
    file: { path: ANCHOR, content: Buffer.from(certificate) },
    afterInstall: AFTER_INSTALL,
    built: new Date(),
  };
}
