/** An answer of the S3 protocol that is not a success: status, code and message as AWS documents them ("Error responses"). */
export class S3Error extends Error {
  constructor(
    readonly status: number,
    readonly code: string,
    message: string,
  ) {
    super(message);
    this.name = 'S3Error';
  }
}

export const s3Errors = {
  accessDenied: (why = 'Access Denied') => new S3Error(403, 'AccessDenied', why),
  badDigest: (what: string) => new S3Error(400, 'BadDigest', `The content does not match its ${what}.`),
  bucketExists: () => new S3Error(409, 'BucketAlreadyOwnedByYou', 'The bucket exists already and is yours.'),
  bucketNotEmpty: () => new S3Error(409, 'BucketNotEmpty', 'The bucket is not empty.'),
  diskFull: () => new S3Error(507, 'InsufficientStorage', 'The disk of the store is full.'),
  entityTooLarge: () => new S3Error(400, 'EntityTooLarge', 'The request is larger than it may be.'),
  entityTooSmall: () => new S3Error(400, 'EntityTooSmall', 'A part that is not the last one is smaller than 5 MiB.'),
  incompleteBody: () => new S3Error(400, 'IncompleteBody', 'The body is shorter or longer than its headers say.'),
  internal: () => new S3Error(500, 'InternalError', 'The store failed. Its log tells more.'),
  invalidAccessKey: () => new S3Error(403, 'InvalidAccessKeyId', 'The access key is not known.'),
  invalidArgument: (what: string) => new S3Error(400, 'InvalidArgument', what),
  invalidBucketName: () => new S3Error(400, 'InvalidBucketName', 'The bucket name is not valid.'),
  invalidDigest: () => new S3Error(400, 'InvalidDigest', 'Content-MD5 is not a base64 md5.'),
  invalidPart: () => new S3Error(400, 'InvalidPart', 'A part is missing or has another etag.'),
  invalidPartOrder: () => new S3Error(400, 'InvalidPartOrder', 'Parts must be listed in ascending order.'),
  invalidRange: () => new S3Error(416, 'InvalidRange', 'The range lies outside of the object.'),
  invalidRequest: (what: string) => new S3Error(400, 'InvalidRequest', what),
  keyTooLong: () => new S3Error(400, 'KeyTooLongError', 'The key is longer than 1024 bytes.'),
  malformedTrailer: (name: string) => new S3Error(400, 'MalformedTrailerError', `The trailer ${name} is missing.`),
  malformedXml: () => new S3Error(400, 'MalformedXML', 'The XML is not as it should be.'),
  missingLength: (name: string) => new S3Error(411, 'MissingContentLength', `The header ${name} is missing.`),
  methodNotAllowed: () => new S3Error(405, 'MethodNotAllowed', 'The method is not allowed here.'),
  noSuchBucket: () => new S3Error(404, 'NoSuchBucket', 'The bucket does not exist.'),
  noSuchKey: () => new S3Error(404, 'NoSuchKey', 'The key does not exist.'),
  noSuchPolicy: () => new S3Error(404, 'NoSuchBucketPolicy', 'The bucket has no policy.'),
  noSuchUpload: () => new S3Error(404, 'NoSuchUpload', 'The upload does not exist: it was completed or aborted.'),
  noSuchVersion: () => new S3Error(404, 'NoSuchVersion', 'The bucket keeps no versions.'),
  notImplemented: (what: string) => new S3Error(501, 'NotImplemented', `This store does not implement ${what}.`),
  notModified: () => new S3Error(304, 'NotModified', 'Not modified.'),
  preconditionFailed: () => new S3Error(412, 'PreconditionFailed', 'A precondition of the request does not hold.'),
  requestExpired: () => new S3Error(403, 'AccessDenied', 'Request has expired'),
  signatureDoesNotMatch: () =>
    new S3Error(403, 'SignatureDoesNotMatch', 'The signature does not match: check the secret key.'),
  timeTooSkewed: () =>
    new S3Error(403, 'RequestTimeTooSkewed', 'The clocks of client and store differ by more than 15 minutes.'),
  unsignedHeader: (name: string) => new S3Error(403, 'AccessDenied', `The header ${name} must be signed.`),
  wrongSha256: () => new S3Error(400, 'XAmzContentSHA256Mismatch', 'The content does not match x-amz-content-sha256.'),
};

/** What an error means to a client: itself, or a full disk; null where the store is to blame. */
export function asS3Error(error: unknown): S3Error | null {
  if (error instanceof S3Error) return error;
  return ['ENOSPC', 'EDQUOT'].includes((error as NodeJS.ErrnoException).code ?? '') ? s3Errors.diskFull() : null;
}
