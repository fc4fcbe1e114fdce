import { describeFailure, isMissing, isTransient } from './s3-failures.js';

const s3Error = (name: string, httpStatusCode: number) => ({ name, $metadata: { httpStatusCode } });
const networkError = (code: string) => Object.assign(new Error(`connect ${code} 10.1.2.3:8080`), { code });

describe('failures of S3', () => {
  it.each([
    ['an unknown access key', s3Error('InvalidAccessKeyId', 403), /check S3_ACCESS_KEY and S3_SECRET_KEY/],
    ['a wrong secret key', s3Error('SignatureDoesNotMatch', 403), /check S3_ACCESS_KEY and S3_SECRET_KEY/],
    ['a HEAD that is refused', s3Error('403', 403), /refuses access: check S3_ACCESS_KEY/],
    ['a clock that is wrong', s3Error('RequestTimeTooSkewed', 403), /set the clock/],
    ['a quota of Ceph', s3Error('QuotaExceeded', 403), /full or a quota is used up/],
    ['a full disk', s3Error('InsufficientStorage', 507), /full or a quota is used up/],
    ['a missing bucket', s3Error('NoSuchBucket', 404), /no such bucket: check S3_IMS_BUCKET and S3_BOOT_IMAGES_BUCKET/],
    ['an overloaded store', s3Error('SlowDown', 503), /overloaded or broken/],
    ['a store that is down', networkError('ECONNREFUSED'), /does not answer: check S3_ENDPOINT/],
    ['a host without a name', networkError('ENOTFOUND'), /does not answer: check S3_ENDPOINT/],
    ['a silent store', { name: 'TimeoutError' }, /does not answer: check S3_ENDPOINT/],
    ['a CA that nobody knows', networkError('DEPTH_ZERO_SELF_SIGNED_CERT'), /let S3_SSL_VALIDATE name the file/],
    ['a certificate of another host', networkError('ERR_TLS_CERT_ALTNAME_INVALID'), /S3_SSL_VALIDATE/],
    ['http in place of https', networkError('EPROTO'), /http:\/\/ or https:\/\//],
    ['anything else', s3Error('Teapot', 418), /^the artifact store failed \(Teapot, status 418\)$/],
    ['an error that says nothing', new Error('secret'), /^the artifact store failed \(unknown error\)$/],
  ])('say what to do about %s', (_, error, sentence) => {
    expect(describeFailure(error)).toMatch(sentence);
    expect(describeFailure(error)).not.toMatch(/10\.1\.2\.3|secret$/);
  });

  it('tell a missing artifact from an upload that is over', () => {
    expect(isMissing(s3Error('NotFound', 404))).toBe(true);
    expect(isMissing(s3Error('NoSuchUpload', 404))).toBe(false);
    expect(isMissing(networkError('ECONNREFUSED'))).toBe(false);
  });

  it('tell what may pass by itself', () => {
    const passing = [s3Error('SlowDown', 503), s3Error('x', 429), networkError('ECONNRESET'), { name: 'TimeoutError' }];
    const lasting = [s3Error('AccessDenied', 403), s3Error('InsufficientStorage', 507), networkError('EPROTO')];
    expect(passing.map(isTransient)).toEqual([true, true, true, true]);
    expect(lasting.map(isTransient)).toEqual([false, false, false]);
  });
});
