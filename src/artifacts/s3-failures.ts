/** What an S3 client rejects with, as far as we look at it. */
interface S3Error {
  name?: string;
  /** Of the network, as `ECONNREFUSED`. */
  code?: string;
  $metadata?: { httpStatusCode?: number };
}

/** A kind of failure and the sentence that says what to change. The first that fits counts. */
interface Failure {
  codes: RegExp;
  statuses?: readonly number[];
  sentence: string;
}

const FAILURES: readonly Failure[] = [
  {
    codes: /^(InvalidAccessKeyId|SignatureDoesNotMatch|InvalidToken)$/,
    sentence: 'the artifact store refuses the credentials: check S3_ACCESS_KEY and S3_SECRET_KEY',
  },
  {
    codes: /^(RequestTimeTooSkewed|RequestExpired|RequestInTheFuture)$/,
    sentence: 'the artifact store refuses the time of the request: set the clock of this machine or of the store',
  },
  {
    codes: /^(QuotaExceeded|InsufficientStorage|InsufficientCapacity|XMinioStorageFull|ENOSPC)$/,
    statuses: [507],
    sentence: 'the artifact store is full or a quota is used up: remove images that are not needed, or enlarge it',
  },
  {
    codes: /^NoSuchBucket$/,
    sentence: 'the artifact store has no such bucket: check S3_IMS_BUCKET and S3_BOOT_IMAGES_BUCKET',
  },
  {
    codes: /^(InvalidBucketName|BucketAlreadyExists)$/,
    sentence:
      'the artifact store refuses the name of a bucket, or another user has it: choose other names for S3_IMS_BUCKET and S3_BOOT_IMAGES_BUCKET',
  },
  { codes: /^NoSuchUpload$/, sentence: 'the upload is over: it was completed or aborted before' },
  { codes: /^BadDigest$/, sentence: 'the content changed while it was sent to the artifact store: store it again' },
  {
    codes: /^PreconditionFailed$/,
    statuses: [412],
    sentence: 'the artifact was replaced while it was copied: try again when nobody writes it',
  },
  { codes: /^InvalidRange$/, statuses: [416], sentence: 'the range does not lie inside of the artifact' },
  { codes: /^EntityTooSmall$/, sentence: 'a part other than the last is smaller than 5 MiB' },
  {
    codes: /^(CERT_|DEPTH_ZERO_SELF|SELF_SIGNED|UNABLE_TO_|ERR_TLS_)/,
    sentence:
      'the certificate of the artifact store is not trusted: let S3_SSL_VALIDATE name the file of the CA certificate that signed it',
  },
  {
    codes: /^(EPROTO|ERR_SSL_|HPE_)/,
    sentence: 'the artifact store speaks another protocol: check whether S3_ENDPOINT begins with http:// or https://',
  },
  {
    codes: /^(E[A-Z_]+|TimeoutError)$/,
    sentence: 'the artifact store does not answer: check S3_ENDPOINT and that the store runs',
  },
  {
    codes: /^(SlowDown|ServiceUnavailable|InternalError)$/,
    statuses: [500, 502, 503, 504],
    sentence: 'the artifact store is overloaded or broken: look at its log, and try again later',
  },
  {
    codes: /^AccessDenied$/,
    statuses: [401, 403],
    sentence:
      'the artifact store refuses access: check S3_ACCESS_KEY and S3_SECRET_KEY, and the rights of that user on the bucket',
  },
];

const TRANSIENT_CODES =
  /^(ECONNRESET|ECONNREFUSED|EPIPE|ETIMEDOUT|EHOSTUNREACH|ENETUNREACH|ENOTFOUND|EAI_AGAIN|TimeoutError|RequestTimeout|SlowDown|InternalError)$/;
const TRANSIENT_STATUSES = [429, 500, 502, 503, 504];

/** Name and network code. Errors of S3 carry the name only, those of the network mostly `Error` as their name. */
function codesOf({ name, code }: S3Error): string[] {
  return [code, name].filter((text) => typeof text === 'string');
}

function statusOf(error: S3Error): number {
  return error.$metadata?.httpStatusCode ?? 0;
}

/** Whether the same request may succeed a moment later. */
export function isTransient(error: S3Error): boolean {
  return codesOf(error).some((code) => TRANSIENT_CODES.test(code)) || TRANSIENT_STATUSES.includes(statusOf(error));
}

/** Whether the store has no such artifact or no such bucket. */
export function isMissing(error: S3Error): boolean {
  return statusOf(error) === 404 && error.name !== 'NoSuchUpload';
}

export function isNoSuchUpload(error: S3Error): boolean {
  return error.name === 'NoSuchUpload';
}

/** A sentence for the operator, without host, key or url, and the store's own code for the search in its log. */
export function describeFailure(error: S3Error): string {
  const codes = codesOf(error);
  const status = statusOf(error);
  const failure = FAILURES.find(
    (one) => codes.some((code) => one.codes.test(code)) || (one.statuses?.includes(status) ?? false),
  );
  const known = codes.find((code) => code !== 'Error') ?? 'unknown error';
  return `${failure?.sentence ?? 'the artifact store failed'} (${status ? `${known}, status ${status}` : known})`;
}
