import { readFileSync } from 'node:fs';
import path from 'node:path';
import { jobOf } from '../../src/jobs/launcher/kubernetes/resources.js';
import { aCreateSpec, aJobSpec } from '../support/job-spec.js';
import { kubernetesSettings } from '../support/kubernetes-settings.js';

const job_id = '06c3dd57-f347-4229-85b3-1d024a947b3f';
const { shell } = aJobSpec();

/*
 * Jobs as they are sent to a cluster, member by member, as somebody has read them: what changes here changes what pods may do, see and take. The files
 * are what `kubectl create -f` takes.
 */
it.each([
  ['customize', aJobSpec({ job_id })],
  ['customize-dkms', aJobSpec({ job_id, require_dkms: true })],
  ['create-debug', aCreateSpec({ job_id, shell })],
])('the Job of %s is the one that was read', (name, spec) => {
  const file = path.join(import.meta.dirname, 'jobs', `${name}.json`);
  expect(jobOf(spec, kubernetesSettings())).toEqual(JSON.parse(readFileSync(file, 'utf8')));
});

it('gives a pod as many threads to pack with as the site says', () => {
  const { packing } = aJobSpec();
  const job = jobOf(aJobSpec({ job_id, packing: { ...packing, processors: 3 } }), kubernetesSettings());
  for (const { env } of job.spec!.template.spec!.containers)
    expect(env).toContainEqual({ name: 'UV_THREADPOOL_SIZE', value: '3' });
});
