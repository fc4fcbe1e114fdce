import { readFile } from 'node:fs/promises';
import { type ClientRequest, type IncomingMessage, request as httpRequest } from 'node:http';
import { request as httpsRequest } from 'node:https';
import { createSecureContext, rootCertificates, type SecureContext } from 'node:tls';

/** Milliseconds in which an answer has to begin. */
const TIMEOUT = 10_000;
/** Mirrors hand on to others. */
const MAX_REDIRECTS = 5;

/**
 * Certificates that repositories may be signed by: those that the package managers of this machine trust, and the site's own.
 * @param bundles files of certificates, of which those count that are there; without any the public ones that Node.js knows
 * @param caCertificate PEM; null for none
 */
export async function readTrust(bundles: readonly string[], caCertificate: string | null): Promise<SecureContext> {
  const contents = await Promise.all(bundles.map((file) => readFile(file, 'utf8').catch(() => null)));
  const known = contents.filter((content) => content !== null);
  return createSecureContext({
    ca: [...(known.length ? known : rootCertificates), ...(caCertificate ? [caCertificate] : [])],
  });
}

/**
 * Asks whether something is at an address.
 * @returns null where it is there; otherwise what was answered, in words that complete "it …"
 */
export async function probe(url: URL, trust: SecureContext, abort: AbortSignal): Promise<string | null> {
  let target = url;
  for (let redirects = 0; redirects <= MAX_REDIRECTS; redirects++) {
    try {
      const { statusCode = 0, location } = await askTwice(target, trust, abort);
      if (statusCode >= 200 && statusCode < 300) return null;
      if (statusCode < 300 || statusCode >= 400 || !location) return `answered ${statusCode}`;
      const next = follow(target, location);
      if (!next) return `answered ${statusCode} and led nowhere`;
      target = next;
    } catch (error) {
      return describeError(error as NodeJS.ErrnoException);
    }
  }
  return `led to another place more than ${MAX_REDIRECTS} times`;
}

/** Where an answer leads to; null where that is nowhere. User and password are told to the server that they are meant for, and to no other. */
function follow(from: URL, location: string): URL | null {
  const next = URL.canParse(location, from.href) ? new URL(location, from) : null;
  if (!next || !['http:', 'https:'].includes(next.protocol)) return null;
  if (next.origin === from.origin) {
    next.username ||= from.username;
    next.password ||= from.password;
  }
  return next;
}

interface Answer {
  statusCode: number | undefined;
  location: string | undefined;
}

/** HEAD, and GET for servers that know no other method. */
async function askTwice(url: URL, trust: SecureContext, abort: AbortSignal): Promise<Answer> {
  const answer = await ask('HEAD', url, trust, abort);
  return answer.statusCode === 405 || answer.statusCode === 501 ? ask('GET', url, trust, abort) : answer;
}

function ask(method: string, url: URL, secureContext: SecureContext, abort: AbortSignal): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const onAnswer = (response: IncomingMessage) => {
      // The content is not wanted, however long it is.
      response.destroy();
      resolve({ statusCode: response.statusCode, location: response.headers.location });
    };
    const signal = AbortSignal.any([abort, AbortSignal.timeout(TIMEOUT)]);
    // The types of node:https leave out what node:tls takes, and gets.
    const options = { method, signal, agent: false as const, secureContext };
    const sent: ClientRequest =
      url.protocol === 'https:' ? httpsRequest(url, options, onAnswer) : httpRequest(url, options, onAnswer);
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
  if (code && UNTRUSTED.has(code))
    return 'has a certificate that neither the site CA nor one that the machine trusts has signed';
  return `could not be asked (${code ?? message})`;
}
