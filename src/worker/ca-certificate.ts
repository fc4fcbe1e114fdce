import { writeInRoot } from './in-root.js';
import { JobFailure } from './job-failure.js';

/** Where the certificate of the site CA is found, in the environment of the shell as in images. */
export const CA_CERTIFICATE = '/etc/cray/ca/certificate_authority.crt';

/**
 * Puts the certificate of the site CA into an image root.
 * @param pem null where the site has none
 * @throws JobFailure where the image leaves no room for it
 */
export async function placeCaCertificate(root: string, pem: string | null): Promise<void> {
  if (!pem) return;
  await writeInRoot(root, CA_CERTIFICATE, pem, 0o644).catch((error: NodeJS.ErrnoException) => {
    if (!['EEXIST', 'ENOTDIR', 'EISDIR', 'ELOOP'].includes(error.code ?? '')) throw error;
    throw new JobFailure(
      `the certificate of the site CA cannot be put at ${CA_CERTIFICATE} of the image: something else stands in its way (${error.code})`,
      { cause: error },
    );
  });
}
