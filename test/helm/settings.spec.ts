import { readFileSync } from 'node:fs';
import path from 'node:path';
import { ENV, type EnvName, type EnvVariable } from '../../src/config/env.js';
import { chartSettingsSchema, ONE_MACHINE_ONLY, SET_BY_CHART, withSettings } from '../../src/config/chart-settings.js';
import { CHART, describeWithHelm, render } from '../support/helm.js';

const SCHEMA = readFileSync(path.join(CHART, 'values.schema.json'), 'utf8');

/** Values that have to arrive in the environment as they are: the least and the largest, every choice, every boolean. */
function extremesOf({ type }: EnvVariable): unknown[] {
  if (type.kind === 'integer') return [type.min, type.max];
  if (type.kind === 'choice') return [...type.of];
  return type.kind === 'boolean' ? [true, false] : ['text of a site'];
}

const settings = Object.keys(chartSettingsSchema()) as EnvName[];

it('values.schema.json is what `npm run openapi` writes', () => {
  expect(SCHEMA).toBe(withSettings(SCHEMA));
});

it('every setting can be set by a value, is made by the chart, or means nothing in a cluster', () => {
  expect([...settings, ...SET_BY_CHART, ...ONE_MACHINE_ONLY].toSorted()).toEqual(Object.keys(ENV).toSorted());
});

describeWithHelm('settings of a release', () => {
  /** Sets every setting to its nth extreme, or its last one. */
  const nth = (n: number) =>
    Object.fromEntries(
      settings.map((name) => {
        const extremes = extremesOf(ENV[name]);
        return [name, extremes[Math.min(n, extremes.length - 1)]];
      }),
    );

  it.each([0, 1, 2, 6])('arrive as they are (%i)', (n) => {
    const { data } = render({ settings: nth(n) }).find(({ kind }) => kind === 'ConfigMap')!;
    const texts = Object.entries(nth(n)).map(([name, value]) => [name, String(value)]);
    expect(data).toMatchObject(Object.fromEntries(texts));
  });

  it('that are made by the chart are known to the server', () => {
    const { data } = render({
      s3: { endpoint: 'http://rgw', sslValidate: true },
      jobs: { storageClass: 'fast' },
      remoteBuildNodes: { secret: 'key' },
    }).find(({ kind }) => kind === 'ConfigMap')!;
    const fromSecrets = ['DATABASE_URL', 'S3_ACCESS_KEY', 'S3_SECRET_KEY'];
    // The site CA is mounted where the server looks for it by itself.
    const made = SET_BY_CHART.filter((name) => !fromSecrets.includes(name) && name !== 'CA_CERT');
    expect(Object.keys(data as object).toSorted()).toEqual([...made, 'LISTEN_ADDRESS'].toSorted());
  });
});
