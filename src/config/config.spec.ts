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
    expect(() => loadConfig({ JOB_LAUNCHER: 'kubernetes' })).toThrow(/DATABASE_URL[\s\S]*S3_ENDPOINT/);
  });

  it('gives a configuration that nobody can change', () => {
    expect(Object.isFrozen(loadConfig({}).jobs.local.ports)).toBe(true);
  });
});
