import path from 'node:path';
import type { JobView } from '../../src/quickstart/api.js';
import { DEMO_RECIPE, packRecipe } from '../../src/quickstart/demo-recipe.js';
import { buildDemoRepository } from '../../src/quickstart/demo-repository.js';
import { registerRecipe } from '../../src/quickstart/register-recipe.js';
import { RepositoryServer } from '../support/repository.js';
import { System } from '../support/system.js';

let system: System;
let repository: RepositoryServer;
let keyId: string;

beforeAll(async () => {
  system = await System.start();
  keyId = await system.addKey();
  await buildDemoRepository(system.file('repository'));
  repository = await new RepositoryServer(system.file('repository')).start();
}, 120_000);
afterAll(async () => {
  await repository.stop();
  await system.stop();
});

it('x', async () => {
  const archive = await packRecipe(DEMO_RECIPE, system.file('a.tgz'));
  const values = [
    { key: 'REPOSITORY', value: repository.url },
    { key: 'PACKAGES', value: 'motd-tiny' },
  ];
  const id = await registerRecipe(system.api, system.store, 'ims', { name: 'demo', archive, values });
  const job = await system.api.request<JobView>('POST', '/jobs', {
    job_type: 'create',
    artifact_id: id,
    public_key_id: keyId,
    image_root_archive_name: 'built',
  });
  const done = await system.waitFor(job.id, 'success', 90);
  console.log(await system.jobLog(job.id));
  console.log(
    JSON.stringify(await system.api.request('GET', `/images/${done.resultant_image_id}`)),
    JSON.stringify(await system.manifestOf(done.resultant_image_id!)),
  );
  console.log(
    (
      await system.withMounted(
        [await system.rootfsOf(done.resultant_image_id!)],
        'cd $A; find . -xdev | grep -v usr/bin | sort; cat etc/*-sh',
      )
    ).stdout,
  );
}, 120_000);
