import { buffer } from 'node:stream/consumers';
import { KubeConfig } from '@kubernetes/client-node';
import { KubeClient } from '../../src/jobs/launcher/kubernetes/kube-client.js';
import { KubernetesJobLauncher } from '../../src/jobs/launcher/kubernetes/kubernetes-job-launcher.js';
import type { BatchJob, PersistentVolumeClaim, Secret, Service } from '../../src/jobs/launcher/kubernetes/objects.js';
import {
  PERMISSIONS,
  type PolicyRule,
  signingKeysPermissions,
} from '../../src/jobs/launcher/kubernetes/permissions.js';
import type { KubernetesSettings } from '../../src/jobs/launcher/kubernetes/resources.js';
import { LaunchRefused, NotYet } from '../../src/jobs/launcher/job-launcher.js';
import { describeJobLauncher } from '../contracts/job-launcher.js';
import { FakeKubernetes, type SeenRequest } from '../support/fake-kubernetes.js';
import { aCreateSpec, aJobSpec } from '../support/job-spec.js';
import { kubernetesSettings } from '../support/kubernetes-settings.js';
import { sleep, until } from '../support/system.js';

function launcherOn(
  cluster: Pick<FakeKubernetes, 'url'>,
  settings: Partial<KubernetesSettings> = {},
  pendingSeconds = 60,
): KubernetesJobLauncher {
  const config = new KubeConfig();
  // The double has no TLS.
  config.loadFromClusterAndUser(
    { name: 'double', server: cluster.url, skipTLSVerify: true },
    { name: 'ims', token: 'token' },
  );
  const client = new KubeClient(config, 'ims');
  return new KubernetesJobLauncher(client, {
    settings: kubernetesSettings(settings),
    pendingSeconds,
    readStoreCa: async () => null,
  });
}

async function isSynced(launcher: KubernetesJobLauncher): Promise<void> {
  await until('the cluster is known', () =>
    launcher.ready().then(
      () => true,
      () => false,
    ),
  );
}

describeJobLauncher(
  'KubernetesJobLauncher',
  async () => {
    const cluster = await FakeKubernetes.start();
    const launcher = launcherOn(cluster);
    await isSynced(launcher);
    const isThere = (jobId: string) => until('its pod runs', async () => cluster.podOf(jobId) !== undefined);
    return {
      launcher,
      print: async (jobId, text) => {
        await isThere(jobId);
        cluster.print(jobId, 'sshd', text);
      },
      end: async (jobId, how) => {
        await isThere(jobId);
        cluster.end(jobId, how === 'well' ? 0 : 3);
      },
      close: async () => {
        await launcher.stop();
        await cluster.close();
      },
    };
  },
  { hasLimits: false, endsWithServer: false },
);

describe('KubernetesJobLauncher', () => {
  let cluster: FakeKubernetes;
  let launcher: KubernetesJobLauncher;

  beforeEach(async () => {
    cluster = await FakeKubernetes.start();
    launcher = launcherOn(cluster);
    await isSynced(launcher);
  });
  afterEach(async () => {
    await launcher.stop();
    await cluster.close();
  });

  const written = () => cluster.requests.filter(({ method }) => method !== 'GET').map(toLine);
  const toLine = ({ method, path }: SeenRequest) => `${method} ${path.split('/').slice(-2).join('/')}`;

  it('makes the Job at rest, then what it owns, and lets it go in the end', async () => {
    const spec = aJobSpec();
    await launcher.launch(spec);
    const lines = written();
    expect(lines[0]).toBe('POST ims/jobs');
    expect(lines.slice(1, 4).toSorted()).toEqual([
      'POST ims/configmaps',
      'POST ims/persistentvolumeclaims',
      'POST ims/services',
    ]);
    expect(lines.slice(4)).toEqual([`PATCH jobs/cray-ims-${spec.job_id}-customize`]);
    const [job] = cluster.all<BatchJob>('jobs');
    expect(job!.spec.suspend).toBe(false);
    for (const kind of ['configmaps', 'persistentvolumeclaims', 'services'])
      expect(cluster.all(kind)[0]!.metadata.ownerReferences).toEqual([
        { apiVersion: 'batch/v1', kind: 'Job', name: job!.metadata.name, uid: job!.metadata.uid },
      ]);
  });

  it('has the API server refuse unknown members in all that it sends', async () => {
    await launcher.launch(aJobSpec());
    const sent = cluster.requests.filter(({ method }) => ['POST', 'PATCH'].includes(method));
    expect(sent).toHaveLength(5);
    for (const { query } of sent) expect(query.get('fieldValidation')).toBe('Strict');
  });

  it.each(['configmaps', 'persistentvolumeclaims', 'services'])(
    'goes on where a launch was interrupted at %s, and makes nothing twice',
    async (plural) => {
      const spec = aJobSpec();
      cluster.refuse('POST', plural, 503);
      await expect(launcher.launch(spec)).rejects.toThrow('refused by the test');
      expect(cluster.all('pods')).toEqual([]);
      await launcher.launch(spec);
      expect((await launcher.observe(spec.job_id)).state).toBe('running');
      for (const kind of ['jobs', 'configmaps', 'persistentvolumeclaims', 'services', 'pods'])
        expect(cluster.all(kind)).toHaveLength(1);
    },
  );

  it('makes one job of what three servers launch at once', async () => {
    const others = [launcherOn(cluster), launcherOn(cluster)];
    await Promise.all(others.map(isSynced));
    const spec = aJobSpec();
    await Promise.all([launcher, ...others].map((each) => each.launch(spec)));
    for (const kind of ['jobs', 'configmaps', 'persistentvolumeclaims', 'services', 'pods'])
      expect(cluster.all(kind)).toHaveLength(1);
    await Promise.all(others.map((each) => each.stop()));
  });

  it.each([
    [403, 'exceeded quota: ims'],
    [422, 'Job.batch is invalid'],
  ])('gives up where the API server refuses for good (%i), and leaves nothing', async (status, message) => {
    const spec = aJobSpec();
    cluster.refuse('POST', 'persistentvolumeclaims', status, message);
    await expect(launcher.launch(spec)).rejects.toThrow(LaunchRefused);
    expect(cluster.objects.size).toBe(0);
  });

  it('names the setting where there is no namespace for jobs', async () => {
    cluster.refuse('POST', 'jobs', 404, 'namespaces "ims" not found');
    const refusal = await launcher.launch(aJobSpec()).catch((error: unknown) => error);
    expect(refusal).toBeInstanceOf(LaunchRefused);
    expect(refusal).toMatchObject({ message: expect.stringMatching(/namespaces "ims".*DEFAULT_IMS_JOB_NAMESPACE/) });
  });

  describe('a launch that fails again and again', () => {
    let hasty: KubernetesJobLauncher;
    const failsWith = async (status: number, on = hasty, spec = aJobSpec()) => {
      cluster.refuse('POST', 'persistentvolumeclaims', status, 'the webhook says no');
      return on.launch(spec).catch((error: unknown) => error);
    };

    beforeEach(async () => {
      hasty = launcherOn(cluster, {}, 0.5);
      await isSynced(hasty);
    });
    afterEach(() => hasty.stop());

    it.each([401, 500])('is given up in time where the API server answers (%i), and leaves nothing', async (status) => {
      const spec = aJobSpec();
      expect(await failsWith(status, hasty, spec)).not.toBeInstanceOf(LaunchRefused);
      await sleep(600);
      const refusal = await failsWith(status, hasty, spec);
      expect(refusal).toBeInstanceOf(LaunchRefused);
      expect(refusal).toMatchObject({ message: expect.stringMatching(/the webhook says no.*JOB_POD_SETTINGS/) });
      expect(cluster.objects.size).toBe(0);
    });

    it('has its time anew where one has worked', async () => {
      const spec = aJobSpec();
      await failsWith(500, hasty, spec);
      await sleep(600);
      await hasty.launch(spec);
      await hasty.remove(spec.job_id);
      expect(await failsWith(500, hasty, spec)).not.toBeInstanceOf(LaunchRefused);
    });

    it.each([429, 503])('goes on for an API server that has no time (%i), or is away', async (status) => {
      const away = launcherOn({ url: 'http://127.0.0.1:1' }, {}, 0.5);
      const spec = aJobSpec();
      for (let tries = 0; tries < 3; tries++) {
        const failures = await Promise.all([
          failsWith(status, hasty, spec),
          away.launch(spec).catch((error: unknown) => error),
        ]);
        for (const failure of failures) {
          expect(failure).toBeInstanceOf(Error);
          expect(failure).not.toBeInstanceOf(LaunchRefused);
        }
        await sleep(400);
      }
      await away.stop();
    });
  });

  describe('the signing keys of the site', () => {
    const data = { 'site.asc': Buffer.from('a key').toString('base64') };
    const published = () =>
      cluster.put('secrets', 'services', {
        metadata: { name: 'hpe-signing-key', labels: { site: 'a' } },
        data,
      } as Secret);
    const copies = () => cluster.all<Secret>('secrets').filter(({ metadata }) => metadata.namespace === 'ims');

    it('are copied for each create job, are told of, and go with it', async () => {
      published();
      const spec = aCreateSpec();
      await launcher.launch(spec);
      const name = `cray-ims-${spec.job_id}-signing-keys`;
      expect(copies()).toMatchObject([{ metadata: { name, ownerReferences: [{ kind: 'Job' }] }, data }]);
      await until('it is told of', async () => {
        const seen = await launcher.observe(spec.job_id);
        return seen.state === 'running' && seen.secret === name;
      });
      await launcher.remove(spec.job_id);
      expect(copies()).toEqual([]);
    });

    it('may be missing', async () => {
      const spec = aCreateSpec();
      await launcher.launch(spec);
      expect(copies()).toEqual([]);
      expect(await launcher.observe(spec.job_id)).not.toHaveProperty('secret');
    });

    it('are not for customize jobs', async () => {
      published();
      await launcher.launch(aJobSpec());
      expect(copies()).toEqual([]);
    });

    it.each([403, 503])('that cannot be read (%i) keep a build from going on without them', async (status) => {
      published();
      const spec = aCreateSpec();
      cluster.refuse('GET', 'secrets', status);
      const refusal = await launcher.launch(spec).catch((error: unknown) => error);
      expect([refusal instanceof LaunchRefused, cluster.all('pods')]).toEqual([status === 403, []]);
      // Where another try may help, that one goes on.
      if (status === 503) await launcher.launch(spec);
      expect(copies()).toHaveLength(status === 503 ? 1 : 0);
    });
  });

  it('leaves the mesh alone where there is none, and tells it to stay out where there is one', async () => {
    await launcher.launch(aJobSpec());
    expect(cluster.all('destinationrules')).toEqual([]);
    cluster.groups.add('/apis/networking.istio.io/v1');
    const spec = aJobSpec();
    await launcher.launch(spec);
    expect(cluster.all('destinationrules')).toMatchObject([
      {
        spec: {
          host: `cray-ims-${spec.job_id}-service.ims.svc.cluster.local`,
          trafficPolicy: { tls: { mode: 'DISABLE' } },
        },
      },
    ]);
    await launcher.release(spec.job_id);
    expect(cluster.all('destinationrules')).toEqual([]);
  });

  it('gives back address and disk of a job that it releases, and keeps Job and pod', async () => {
    const spec = aJobSpec();
    await launcher.launch(spec);
    await until(
      'its pod is known',
      async () => (await launcher.observe(spec.job_id)).state === 'running' && cluster.podOf(spec.job_id) !== undefined,
    );
    await launcher.release(spec.job_id);
    const left = (plural: string) => cluster.all<Service | PersistentVolumeClaim>(plural).length;
    expect(['services', 'persistentvolumeclaims', 'jobs', 'pods'].map(left)).toEqual([0, 0, 1, 1]);
  });

  describe('leaves nothing where it releases a job of which nothing has begun, and no node would end anything', () => {
    it.each<[string, () => void]>([
      ['its pod has no node', () => void (cluster.startsPods = false)],
      ['no pod is made of it', () => void (cluster.refusesPods = 'exceeded quota')],
      ['its launch was interrupted', () => cluster.refuse('POST', 'services', 503)],
    ])('%s', async (_why, prepare) => {
      prepare();
      const { job_id } = aJobSpec();
      await launcher.launch(aJobSpec({ job_id })).catch(() => {});
      expect(cluster.all('jobs')).toHaveLength(1);
      await launcher.release(job_id);
      await launcher.release(job_id);
      expect(cluster.all('events').length).toBe(cluster.objects.size);
      await until('it is seen', async () => (await launcher.observe(job_id)).state === 'absent');
    });
  });

  it('does not wait for a node that does not answer, and goes on with the removal when it is asked again', async () => {
    const { job_id } = aJobSpec();
    await launcher.launch(aJobSpec({ job_id }));
    cluster.nodesAnswer = false;
    const begun = Date.now();
    await expect(launcher.remove(job_id)).rejects.toThrow(NotYet);
    expect(Date.now() - begun).toBeLessThan(5000);
    expect(await launcher.list()).toEqual([job_id]);
    const [[path]] = [...cluster.objects] as [[string, unknown]];
    expect(cluster.objects.size).toBe(1);
    cluster.nodesAnswer = true;
    cluster.remove(path);
    await launcher.remove(job_id);
    expect(cluster.objects.size).toBe(0);
  });

  it.each([400, 404])('takes a log that is not there (%i) for an empty one', async (status) => {
    const { job_id } = aJobSpec();
    await launcher.launch(aJobSpec({ job_id }));
    const logOf = async () => (await buffer(launcher.log(job_id, 'sshd', 0, null))).toString();
    cluster.print(job_id, 'sshd', 'a line\n');
    await until('its log is there', async () => (await logOf()) === 'a line\n');
    cluster.refuse('GET', `pods/${cluster.podOf(job_id)!.metadata.name}/log`, status);
    expect(await logOf()).toBe('');
    cluster.refuse('GET', `pods/${cluster.podOf(job_id)!.metadata.name}/log`, 403);
    await expect(logOf()).rejects.toThrow('refused by the test');
  });

  it('tells the address that the balancer gave', async () => {
    const { job_id } = aJobSpec();
    await launcher.launch(aJobSpec({ job_id }));
    cluster.change(cluster.all<Service>('services')[0]!, {
      status: { loadBalancer: { ingress: [{ ip: '10.97.0.7' }] } },
    });
    await until('it is told', async () => {
      const observation = await launcher.observe(job_id);
      return observation.state === 'running' && observation.externalIp === '10.97.0.7';
    });
  });

  it('tells why the cluster makes no pod', async () => {
    cluster.refusesPods = 'pods "x" is forbidden: service account ims/nobody was not found';
    const { job_id } = aJobSpec();
    await launcher.launch(aJobSpec({ job_id }));
    cluster.change(cluster.all<BatchJob>('jobs')[0]!, {
      metadata: { creationTimestamp: new Date(Date.now() - 10_000).toISOString() },
    });
    await until('it is told', async () => {
      const observation = await launcher.observe(job_id);
      return observation.state === 'running' && /nobody was not found/.test(observation.waits ?? '');
    });
    cluster.change(cluster.all<BatchJob>('jobs')[0]!, {
      metadata: { creationTimestamp: new Date(Date.now() - 100_000).toISOString() },
    });
    await until('its time is over', async () => (await launcher.observe(job_id)).state === 'ended');
    expect(await launcher.observe(job_id)).toMatchObject({
      reason: expect.stringMatching(/nobody was not found.*JOB_MOUNT_SERVICE_ACCOUNT/),
    });
  });

  it('notices what happens after its watches were cut', async () => {
    const { job_id } = aJobSpec();
    await launcher.launch(aJobSpec({ job_id }));
    cluster.dropWatches();
    cluster.end(job_id, 0);
    await until('it is noticed', async () => (await launcher.observe(job_id)).state === 'ended');
  });

  it('does not take a silent cluster for an empty one', async () => {
    const nowhere = launcherOn({ url: 'http://127.0.0.1:1' });
    await until('it has failed', () =>
      nowhere.free().then(
        () => false,
        (error: Error) => /cannot be reached/.test(error.message),
      ),
    );
    await expect(nowhere.observe(aJobSpec().job_id)).rejects.toThrow(/cannot be reached/);
    await expect(nowhere.list()).rejects.toThrow(/cannot be reached/);
    await nowhere.stop();
  });

  it('asks for nothing that its role does not allow, and for all of it', async () => {
    cluster.groups.add('/apis/networking.istio.io/v1');
    cluster.put('secrets', 'services', { metadata: { name: 'hpe-signing-key' } });
    const spec = aCreateSpec();
    await launcher.launch(spec);
    await until(
      'its pod is known',
      async () => (await launcher.list()).length === 1 && cluster.podOf(spec.job_id) !== undefined,
    );
    cluster.print(spec.job_id, 'sshd', 'a line\n');
    await until('its log is there', async () => {
      for await (const chunk of launcher.log(spec.job_id, 'sshd', 0, null)) return chunk.length > 0;
      return false;
    });
    await launcher.release(spec.job_id);
    await launcher.remove(spec.job_id);
    cluster.refusesPods = 'forbidden';
    await launcher.launch(aJobSpec());
    const [refused] = cluster.all<BatchJob>('jobs');
    cluster.change(refused!, { metadata: { creationTimestamp: new Date(0).toISOString() } });
    const refusedId = refused!.metadata.labels!['app.kubernetes.io/instance']!;
    await until('its end is seen', async () => (await launcher.observe(refusedId)).state === 'ended');
    const used = new Set(cluster.requests.filter(({ path }) => path.includes('/namespaces/')).map(permissionOf));
    const rights = (namespace: string, rules: readonly PolicyRule[]) =>
      rules.flatMap(({ apiGroups, resources, verbs }) =>
        resources.flatMap((resource) => verbs.map((verb) => `${namespace}: ${apiGroups[0]} ${resource} ${verb}`)),
      );
    const allowed = [...rights('ims', PERMISSIONS), ...rights('services', signingKeysPermissions('hpe-signing-key'))];
    expect([...used].toSorted()).toEqual(allowed.toSorted());
  });
});

/** The permission that a request needs, as `ims: batch jobs create`. */
function permissionOf({ method, path, query }: SeenRequest): string {
  const [, group = '', namespace, rest = ''] = /^\/api(?:s\/([^/]+))?\/v1\/namespaces\/(\w+)\/(.*)$/.exec(path)!;
  const [plural, name, part] = rest.split('/');
  const reads = name === undefined ? (query.get('watch') === 'true' ? 'watch' : 'list') : 'get';
  const verb = { GET: reads, POST: 'create', PATCH: 'patch', DELETE: 'delete' }[method];
  return `${namespace}: ${group} ${part ? `${plural}/${part}` : plural} ${verb}`;
}
