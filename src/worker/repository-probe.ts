import { type ClientRequest, type IncomingMessage, request as httpRequest } from 'node:http';
import { request as httpsRequest } from 'node:https';
import { rootCertificates } from 'node:tls';

/** Milliseconds in which an answer has to begin. */
const TIMEOUT = 10_000;
/** Mirrors hand on to others. */
const MAX_REDIRECTS = 5;

/**
 * Asks whether something is at an address.
 * @param caCertificate PEM of a CA that is trusted beside the public ones; null for none
 * @returns null where it is there; otherwise what was answered, in words that complete "it …"
 */
export async function probe(url: URL, caCertificate: string | null, abort: AbortSignal): Promise<string | null> {
  let target = url;
  for (let redirects = 0; redirects <= MAX_REDIRECTS; redirects++) {
    const answer = await askTwice(target, caCertificate, abort).catch((error: NodeJS.ErrnoException) => error);
    if (answer instanceof Error) return describeError(answer);
    const { statusCode = 0, location } = answer;
    if (statusCode >= 200 && statusCode < 300) return null;
    if (statusCode < 300 || statusCode >= 400 || !location) return `answered ${statusCode}`;
    const next = URL.canParse(location, target.href) ? new URL(location, target) : null;
    if (!next || !['http:', 'https:'].includes(next.protocol)) return `answered ${statusCode} and led nowhere`;
    target = next;
  }
  return `led to another place more than ${MAX_REDIRECTS} times`;
}

interface Answer {
  statusCode: number | undefined;
  location: string | undefined;
}

/** HEAD, and GET for servers that know no other method. */
async function askTwice(url: URL, caCertificate: string | null, abort: AbortSignal): Promise<Answer> {
  const answer = await ask('HEAD', url, caCertificate, abort);
  return answer.statusCode === 405 || answer.statusCode === 501 ? ask('GET', url, caCertificate, abort) : answer;
}

function ask(method: string, url: URL, caCertificate: string | null, abort: AbortSignal): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const onAnswer = (response: IncomingMessage) => {
      // The content is not wanted, however long it is.
      response.destroy();
      resolve({ statusCode: response.statusCode, location: response.headers.location });
    };
    const signal = AbortSignal.any([abort, AbortSignal.timeout(TIMEOUT)]);
    const options = { method, signal, agent: false } as const;
    const sent: ClientRequest =
      url.protocol === 'https:'
        ? httpsRequest(
            url,
            { ...options, ...(caCertificate && { ca: [...rootCertificates, caCertificate] }) },
            onAnswer,
          )
        : httpRequest(url, options, onAnswer);
    sent.on('error', reject).end();
  });
}

/** Errors of certificates that are signed by nobody who is trusted. */
const UNTRUSTED = new Set([
  'DEPTH_ZERO_SELF_SIGNED_CERT',
  'SELF_SIGNED_CERT_IN_CHAIN',
  'UNABLE_TO_GET_ISSUER_CERT_LOCALLY',
  'UNABLE_TO_VERIFY_LEAF_SIGNATURE',
]);

function describeError({ name, code, message }: NodeJS.ErrnoException): string {
  if (name === 'AbortError' || name === 'TimeoutError') return 'did not answer in time';
  if (code && UNTRUSTED.has(code)) return 'has a certificate that neither the site CA nor a public one has signed';
  return `could not be asked (${code ?? message})`;
}
