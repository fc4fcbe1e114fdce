import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { load } from 'js-yaml';
import { loadConfig } from '../../src/config/config.js';
import { ENV } from '../../src/config/env.js';
import { SERVICE_VERSION } from '../../src/health/service-version.js';
import { CAPABILITIES } from '../../src/jobs/launcher/local/requirements.js';
import openapi from '../../openapi/openapi.json' with { type: 'json' };

interface Service {
  image: string;
  build?: { context: string; dockerfile: string };
  environment: Record<string, string>;
  ports?: string[];
  volumes: string[];
  healthcheck: { test: string[] };
  depends_on?: Record<string, { condition: string }>;
  cap_drop?: string[];
  cap_add?: string[];
  devices?: string[];
  privileged?: boolean;
}

const FILE = 'docker-compose.yml';
const { services, volumes } = load(readFileSync(FILE, 'utf8')) as {
  services: Record<'server' | 'database' | 'store', Service>;
  volumes: Record<string, null>;
};

/** A value as compose fills it in where the variables of the shell are unset. */
function filledIn(text: string): string {
  return String(text).replaceAll(/\$\{\w+:-([^}]*)\}/g, '$1');
}

describe('docker-compose.yml', () => {
  const environment = Object.fromEntries(
    Object.entries(services.server.environment).map(([name, value]) => [name, filledIn(value)]),
  );

  it('gives the server settings that it knows and takes', () => {
    expect(Object.keys(environment).filter((name) => !(name in ENV))).toEqual([]);
    const config = loadConfig(environment);
    expect(config.jobs.launcher).toBe('local');
    expect(config.jobs.local).toMatchObject({ listenAddress: '0.0.0.0', host: '127.0.0.1' });
  });

  it('publishes the ports that records name, on this machine only', () => {
    const { ports } = loadConfig(environment).jobs.local;
    const range = `${ports.first}-${ports.last}`;
    expect(services.server.ports).toEqual(['127.0.0.1:8080:8080', `127.0.0.1:${range}:${range}`]);
    expect([services.database.ports, services.store.ports]).toEqual([undefined, undefined]);
  });

  it('connects the server to its database and its store with the same names and keys', () => {
    const { username, password, hostname, pathname } = new URL(environment['DATABASE_URL']!);
    const { POSTGRES_USER, POSTGRES_PASSWORD, POSTGRES_DB } = services.database.environment;
    expect([username, password, hostname, pathname]).toEqual([
      POSTGRES_USER,
      filledIn(POSTGRES_PASSWORD!),
      'database',
      `/${POSTGRES_DB}`,
    ]);
    const { MINIO_ROOT_USER, MINIO_ROOT_PASSWORD } = services.store.environment;
    expect([environment['S3_ACCESS_KEY'], environment['S3_SECRET_KEY']]).toEqual(
      [MINIO_ROOT_USER, MINIO_ROOT_PASSWORD].map((value) => filledIn(value!)),
    );
    // What MinIO asks of the keys of its root.
    expect(filledIn(MINIO_ROOT_PASSWORD!).length).toBeGreaterThanOrEqual(8);
  });

  it('gives the server what local jobs ask for, and no more', () => {
    const { privileged, cap_drop, cap_add, devices } = services.server;
    expect([privileged, cap_drop]).toEqual([undefined, ['ALL']]);
    expect(cap_add!.toSorted()).toEqual(Object.keys(CAPABILITIES).toSorted());
    expect(devices).toContain('/dev/net/tun');
  });

  it('pins its images, keeps their data, and waits for their health', () => {
    for (const { image } of Object.values(services)) expect(image).toMatch(/:[^:/]*\d[^:/]*$/);
    expect(services.server.image).toBe(`cray-ims-machine:${SERVICE_VERSION}`);
    expect(existsSync(services.server.build!.dockerfile)).toBe(true);
    for (const service of Object.values(services))
      for (const volume of service.volumes) expect(Object.keys(volumes)).toContain(volume.split(':')[0]);
    const conditions = Object.entries(services.server.depends_on!).map(([name, { condition }]) => [name, condition]);
    expect(Object.fromEntries(conditions)).toEqual({ database: 'service_healthy', store: 'service_healthy' });
    for (const { healthcheck } of Object.values(services)) expect(healthcheck.test[0]).toBe('CMD');
    const [, path] = /127\.0\.0\.1:8080([\w/]+)'/.exec(services.server.healthcheck.test.join(' '))!;
    expect(Object.keys(openapi.paths)).toContain(path);
  });

  const compose = spawnSync('docker', ['compose', 'version']).status === 0;
  if (!compose)
    process.stderr.write('skipped, there is no `docker compose` here: what it says to docker-compose.yml\n');
  (compose ? it : it.skip)('is taken by docker compose', () => {
    const { status, stderr } = spawnSync('docker', ['compose', '-f', FILE, 'config', '--quiet'], { encoding: 'utf8' });
    expect([status, stderr]).toEqual([0, '']);
  });
});
