import { readFileSync } from 'node:fs';
import path from 'node:path';
import { startTestApp } from '../support/app.js';
import { TestDatabases } from '../support/database.js';
import { DIFFERENCE_IDS } from './differences.js';
import { Replay, type Tally } from './replay.js';
import { readScenario } from './scenario.js';

const SCENARIOS = [
  'persistence',
  'public-keys-v3',
  'public-keys-root',
  'images-v3',
  'images-root',
  'methods',
  'recipes-v3',
  'recipes-root',
  'deleted-public-keys',
  'deleted-images',
  'cascade-root',
  'manifests-v3',
  'manifests-root',
  'remote-build-nodes',
  'jobs-v3',
  'jobs-root',
  'jobs-validation-v3',
  'jobs-validation-root',
  'jobs-delete-v3',
  'jobs-manifest-v3',
  'jobs-quirks',
  'jobs-config-nodkms',
  'jobs-config-runtime',
  'jobs-yaml-v3',
  'misc',
];

describe('recordings of the original', () => {
  let databases: TestDatabases;
  const tallies: Tally[] = [];
  beforeAll(async () => {
    databases = await TestDatabases.start();
  });
  afterAll(async () => {
    await databases.stop();
    process.stdout.write(tallies.map(lineOf).join(''));
  });

  it.each(SCENARIOS)(
    '%s',
    async (name) => {
      const databaseUrl = await databases.create();
      const replay = new Replay(readScenario(name), (environment, store) =>
        startTestApp({ databaseUrl, environment, store }),
      );
      const tally = await replay.run();
      tallies.push(tally);
      expect(tally.faults.join('\n')).toBe('');
    },
    120_000,
  );
});

function lineOf({ scenario, matched, byDesign, defectsAnswered, faults }: Tally): string {
  const differed = [...byDesign.values()].reduce((sum, count) => sum + count, 0);
  const why = [...byDesign].map(([id, count]) => `${id} ${count}`).join(', ');
  return `${scenario}: ${matched} matched, ${differed} differed by design${why && ` (${why})`}, ${defectsAnswered} defects answered, ${faults.length} faults\n`;
}

it('every difference is told to users', () => {
  const page = readFileSync(path.resolve(import.meta.dirname, '../../openapi/differences.md'), 'utf8');
  expect(DIFFERENCE_IDS.filter((id) => !page.includes(`| \`${id}\``))).toEqual([]);
});
