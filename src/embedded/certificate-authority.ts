import { execFile } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { access, chmod, mkdir, rename } from 'node:fs/promises';
import path from 'node:path';
import { promisify } from 'node:util';

const run = promisify(execFile);
const YEARS = 20;

/**
 * The certificate of the CA of an embedded site, made at the first start and kept with its key: a site on one machine has one too, so
 * that images can be tried with it.
 * @returns path of the certificate (PEM), or null where this machine has no openssl
 */
export async function provideCertificateAuthority(directory: string): Promise<string | null> {
  const certificate = path.join(directory, 'certificate_authority.crt');
  if (await exists(certificate)) return certificate;
  await mkdir(directory, { recursive: true, mode: 0o700 });
  const temporary = path.join(directory, randomUUID());
  try {
    const subject = [
      '-subj',
      '/CN=Image Management Service, embedded CA',
      '-addext',
      'basicConstraints=critical,CA:TRUE',
    ];
    const key = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-keyout', `${temporary}.key`];
    await run('openssl', [
      'req',
      '-x509',
      '-sha256',
      '-days',
      String(YEARS * 365),
      ...subject,
      ...key,
      '-out',
      temporary,
    ]);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null;
    throw new Error('openssl could not make the embedded CA; set CA_CERT to a certificate of your own', {
      cause: error,
    });
  }
  await chmod(`${temporary}.key`, 0o600);
  // The certificate comes last: where it is, its key is.
  await rename(`${temporary}.key`, path.join(directory, 'certificate_authority.key'));
  await rename(temporary, certificate);
  return certificate;
}

async function exists(file: string): Promise<boolean> {
  return access(file).then(
    () => true,
    () => false,
  );
}
