import { BadConfiguration, loadConfig } from './config.js';

describe('loadConfig', () => {
  it('starts embedded when nothing is set', () => {
    const config = loadConfig({});
    expect(config).toMatchObject({
      port: 8080,
      database: { url: null },
      s3: { endpoint: null, credentials: null, bootImagesBucket: 'boot-images' },
      jobs: { launcher: 'local', namespace: 'ims', buildEnvSizeGib: 10, memSizeGib: 8, enableDkms: true },
    });
  });

  it('counts an empty variable as unset', () => {
    expect(loadConfig({ PORT: '', S3_ENDPOINT: '' })).toMatchObject({ port: 8080, s3: { endpoint: null } });
  });

  it('names every mistake at once, and no value', () => {
    const environment = {
      PORT: 'eighty',
      JOB_LAUNCHER: 'docker',
      JOB_SSH_PORTS: '9-1',
      S3_ENDPOINT: 'https://s3',
      S3_SECRET_KEY: 'hunter2',
    };
    const attempt = () => loadConfig(environment);
    expect(attempt).toThrow(BadConfiguration);
    expect(attempt).toThrow(/PORT .*\n.*JOB_LAUNCHER .*\n.*JOB_SSH_PORTS .*\n.*S3_ACCESS_KEY and S3_SECRET_KEY/);
    expect(attempt).not.toThrow(/hunter2|eighty/);
  });

  it.each([
    ['0', false],
    ['False', false],
    ['yes', true],
    ['/etc/ssl/site.pem', '/etc/ssl/site.pem'],
  ])('reads S3_SSL_VALIDATE=%s', (text, value) => {
    expect(loadConfig({ S3_SSL_VALIDATE: text }).s3.sslValidate).toBe(value);
  });

  it('refuses Kubernetes with parts that only this machine can reach', () => {
    expect(() => loadConfig({ JOB_LAUNCHER: 'kubernetes' })).toThrow(
      /DATABASE_URL[\s\S]*S3_ENDPOINT[\s\S]*JOB_SERVER_URL[\s\S]*JOB_WORKER_IMAGE/,
    );
  });

  it.each([
    ['{', 'must be JSON'],
    ['[]', 'must be a JSON object'],
    ['{"nodeSelektor": {}}', 'must not have the members nodeSelektor'],
  ])('refuses JOB_POD_SETTINGS=%s', (text, mistake) => {
    expect(() => loadConfig({ JOB_POD_SETTINGS: text })).toThrow(mistake);
  });

  it('reads what jobs in a cluster need', () => {
    const environment = {
      JOB_LAUNCHER: 'kubernetes',
      DATABASE_URL: 'postgres://db/ims',
      S3_ENDPOINT: 'http://rgw',
      S3_ACCESS_KEY: 'a',
      S3_SECRET_KEY: 'b',
      JOB_SERVER_URL: 'http://cray-ims.services/',
      JOB_WORKER_IMAGE: 'ims-worker:3',
      JOB_IMAGE_PULL_POLICY: 'never',
      JOB_POD_SETTINGS: '{"priorityClassName": "high"}',
    };
    expect(loadConfig(environment).jobs.kubernetes).toMatchObject({
      serverUrl: 'http://cray-ims.services',
      pullPolicy: 'Never',
      storageClass: null,
      pod: { priorityClassName: 'high' },
    });
  });

  it('gives a configuration that nobody can change', () => {
    expect(Object.isFrozen(loadConfig({}).jobs.local.ports)).toBe(true);
  });
});
