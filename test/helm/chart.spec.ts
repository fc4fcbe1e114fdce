import { readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { load } from 'js-yaml';
import { loadConfig } from '../../src/config/config.js';
import { SERVICE_VERSION } from '../../src/health/service-version.js';
import { PERMISSIONS, signingKeysPermissions } from '../../src/jobs/launcher/kubernetes/permissions.js';
import openapi from '../../openapi/openapi.json' with { type: 'json' };
import { strangersIn } from '../kubernetes/schema.js';
import { CHART, type ChartObject, describeWithHelm, helm, render } from '../support/helm.js';

const VALUES = path.join(import.meta.dirname, 'values');

interface Container {
  name: string;
  image: string;
  args?: string[];
  ports?: { name: string; containerPort: number }[];
  envFrom?: { configMapRef: { name: string } }[];
  env: { name: string; valueFrom: { secretKeyRef: { name: string; key: string; optional?: boolean } } }[];
  securityContext: object;
  volumeMounts?: { name: string; mountPath: string }[];
  [probe: string]: unknown;
}

interface Pod {
  metadata: { labels: Record<string, string>; annotations?: Record<string, string> };
  spec: {
    containers: Container[];
    serviceAccountName?: string;
    volumes?: { name: string }[];
    [member: string]: unknown;
  };
}

function valuesOf(file: string): object {
  return load(readFileSync(path.join(VALUES, file), 'utf8')) as object;
}

function find(objects: ChartObject[], kind: string, name?: string): ChartObject {
  const found = objects.filter((object) => object.kind === kind && (!name || object.metadata.name === name));
  expect(found.map(({ metadata }) => metadata.name)).toHaveLength(1);
  return found[0]!;
}

function podOf({ spec }: ChartObject): Pod {
  return (spec as { template: Pod }).template;
}

function serverOf(objects: ChartObject[]): Container {
  return podOf(find(objects, 'Deployment')).spec.containers[0]!;
}

const SECRET: Record<string, string> = {
  access_key: 'key',
  secret_key: 'secret',
  s3_endpoint: 'http://rgw.local',
  ssl_validate: 'False',
  url: 'postgres://ims@db/ims',
  dsn: 'postgres://ims@db/ims',
};

/** The environment that the server gets, from the ConfigMap and from secrets as sites have them. */
function environmentOf(objects: ChartObject[]): Record<string, string> {
  const { env, envFrom } = serverOf(objects);
  const settings = find(objects, 'ConfigMap', envFrom![0]!.configMapRef.name)['data'] as Record<string, string>;
  const secrets = env.map(({ name, valueFrom }) => [name, SECRET[valueFrom.secretKeyRef.key]!]);
  return { ...settings, ...Object.fromEntries(secrets) };
}

describeWithHelm('the chart', () => {
  it('passes helm lint', () => {
    const { code, stdout } = helm(['lint', '--strict', CHART]);
    expect([code, stdout.match(/^\[(WARNING|ERROR)\].*/gm)]).toEqual([0, null]);
  });

  it('has the version of the server', () => {
    const { version, appVersion } = load(readFileSync(path.join(CHART, 'Chart.yaml'), 'utf8')) as Record<
      string,
      string
    >;
    expect({ version, appVersion }).toEqual({ version: SERVICE_VERSION, appVersion: SERVICE_VERSION });
  });

  it('tells the meaning of every value in its README', () => {
    const readme = readFileSync(path.join(CHART, 'README.md'), 'utf8');
    const names = Object.keys(load(readFileSync(path.join(CHART, 'values.yaml'), 'utf8')) as object);
    expect(names.filter((name) => !new RegExp(`^\\| .*\`${name}\\b`, 'm').test(readme))).toEqual([]);
  });

  it('gives the server the rights that its code uses, and no others', () => {
    const objects = render(valuesOf('everything.yaml'));
    const roles = objects.filter(({ kind }) => kind === 'Role');
    expect(roles.map(({ metadata, rules }) => [metadata.namespace, rules])).toEqual([
      ['ims-jobs', PERMISSIONS],
      ['services', signingKeysPermissions('site-keys')],
    ]);
    for (const { metadata } of roles)
      expect(find(objects, 'RoleBinding', metadata.name)).toMatchObject({
        metadata: { namespace: metadata.namespace },
        roleRef: { kind: 'Role', name: metadata.name },
        subjects: [{ kind: 'ServiceAccount', name: 'ims-service-launch-job', namespace: 'services' }],
      });
    expect(objects.filter(({ kind }) => kind.startsWith('Cluster'))).toEqual([]);
  });

  it.each([
    ['defaults.yaml', `cray-ims-worker:${SERVICE_VERSION}`, `cray-ims-builder:${SERVICE_VERSION}`],
    [
      'everything.yaml',
      'registry.local/ims/cray-ims-worker:3.0.0-site1',
      `registry.local/ims/cray-ims-builder@sha256:${'0123456789abcdef'.repeat(4)}`,
    ],
    ['nothing-optional.yaml', `cray-ims-worker:${SERVICE_VERSION}`, undefined],
  ])('names the images of pods of jobs (%s)', (values, worker, builder) => {
    const { JOB_WORKER_IMAGE, JOB_BUILDER_IMAGE } = environmentOf(render(valuesOf(values)));
    expect([JOB_WORKER_IMAGE, JOB_BUILDER_IMAGE]).toEqual([worker, builder]);
  });

  it('keeps pods of jobs from the API, and lets them report', () => {
    const { spec } = find(render(), 'NetworkPolicy', 'cray-ims') as unknown as {
      spec: { ingress: { ports: { port: string }[]; from: object[] }[]; podSelector: { matchLabels: object } };
    };
    const [api, reports] = spec.ingress;
    expect(api!.ports).toMatchObject([{ port: 'http' }]);
    expect(JSON.stringify(api!.from)).not.toMatch(/ims-job|"ims"/);
    expect(reports).toMatchObject({
      ports: [{ port: 'reports' }],
      from: [
        {
          namespaceSelector: { matchLabels: { 'kubernetes.io/metadata.name': 'ims' } },
          podSelector: { matchLabels: { 'app.kubernetes.io/name': 'ims-job' } },
        },
      ],
    });
  });

  it('lets shells of jobs out, but not into the networks that a site names', () => {
    const jobs = (values: object) =>
      find(render(values), 'NetworkPolicy', 'cray-ims-jobs') as unknown as { spec: object };
    expect(jobs({}).spec).toMatchObject({ policyTypes: ['Ingress'], ingress: [{ ports: [{ port: 22 }] }] });
    const { spec } = jobs({ networkPolicy: { jobs: { exceptCidrs: ['10.32.0.0/12', 'fd00::/8'] } } });
    expect(spec).toMatchObject({
      policyTypes: ['Ingress', 'Egress'],
      egress: [
        { ports: [{ port: 53 }, { port: 53 }] },
        { ports: [{ port: 'reports' }] },
        {
          to: [
            { ipBlock: { cidr: '0.0.0.0/0', except: ['10.32.0.0/12'] } },
            { ipBlock: { cidr: '::/0', except: ['fd00::/8'] } },
          ],
        },
      ],
    });
  });

  it('migrates before servers are replaced, standing on nothing that the release makes', () => {
    const hook = find(render(), 'Job');
    const { containers, serviceAccountName, volumes } = podOf(hook).spec;
    expect(hook.metadata.annotations).toMatchObject({ 'helm.sh/hook': 'pre-install,pre-upgrade' });
    expect(containers[0]!.args).toEqual(['node', 'dist/src/migrate.js']);
    expect(containers[0]!.env.map(({ name }) => name)).toEqual(['DATABASE_URL']);
    expect([containers[0]!.envFrom, serviceAccountName, volumes]).toEqual([undefined, undefined, undefined]);
  });

  it('takes from the secret of the store what values do not say', () => {
    const keys = (values: object) =>
      serverOf(render(values)).env.map(({ name, valueFrom }) => [name, valueFrom.secretKeyRef.key]);
    expect(keys({})).toEqual([
      ['DATABASE_URL', 'url'],
      ['S3_ACCESS_KEY', 'access_key'],
      ['S3_SECRET_KEY', 'secret_key'],
      ['S3_ENDPOINT', 's3_endpoint'],
      ['S3_SSL_VALIDATE', 'ssl_validate'],
    ]);
    const said = { s3: { endpoint: 'https://rgw', sslValidate: false } };
    expect(keys(said).map(([name]) => name)).toEqual(['DATABASE_URL', 'S3_ACCESS_KEY', 'S3_SECRET_KEY']);
    expect(environmentOf(render(said))).toMatchObject({ S3_ENDPOINT: 'https://rgw', S3_SSL_VALIDATE: 'false' });
  });

  it('routes the prefix of the gateway to the service, and metrics to Prometheus', () => {
    const objects = render(valuesOf('everything.yaml'));
    expect(find(objects, 'VirtualService')['spec']).toEqual({
      gateways: ['services/services-gateway'],
      hosts: ['*'],
      http: [
        {
          match: [{ uri: { prefix: '/apis/ims/' } }],
          rewrite: { uri: '/' },
          route: [{ destination: { host: 'ims-of-site', port: { number: 8000 } } }],
        },
      ],
    });
    const monitor = find(objects, 'ServiceMonitor');
    expect(monitor.metadata.labels).toMatchObject({ release: 'prometheus' });
    expect(monitor['spec']).toEqual({
      selector: { matchLabels: (find(objects, 'Service')['spec'] as { selector: object }).selector },
      endpoints: [{ port: 'http', path: '/metrics', interval: '30s' }],
    });
    expect(Object.keys(openapi.paths)).toContain('/metrics');
  });

  it.each([
    ['v1', []],
    ['v1', ['v1beta1', 'v1']],
    ['v1', ['v1']],
    ['v1beta1', ['v1beta1']],
  ])('makes the route as %s in a mesh that offers %j', (version, offered) => {
    const resources = offered.map((each) => `networking.istio.io/${each}/VirtualService`);
    const route = find(render({ virtualService: { enabled: true } }, resources), 'VirtualService');
    expect(route.apiVersion).toBe(`networking.istio.io/${version}`);
  });

  it('lets requests to its servers while their database answers, whatever else is away', () => {
    const server = serverOf(render());
    expect(server['readinessProbe']).toMatchObject({ httpGet: { path: '/healthz/serving', port: 'http' } });
    expect(server['livenessProbe']).toMatchObject({ httpGet: { path: '/healthz/live', port: 'http' } });
  });

  it('refuses jobs in the namespace of the servers, where their shells would reach the API', () => {
    expect(() => render({ jobs: { namespace: 'services' } })).toThrow(
      /jobs\.namespace: "services" is the namespace of the servers/,
    );
  });

  it('makes new pods when a setting changes, and only then', () => {
    const checksum = (values: object) =>
      podOf(find(render(values), 'Deployment')).metadata.annotations!['checksum/settings'];
    expect(checksum({ replicaCount: 3 })).toBe(checksum({}));
    expect(checksum({ settings: { LOG_LEVEL: 'debug' } })).not.toBe(checksum({}));
  });
});

describeWithHelm('objects of the chart', () => {
  describe.each(readdirSync(VALUES))('with %s', (file) => {
    let objects: ChartObject[];
    beforeAll(() => {
      objects = render(valuesOf(file));
    });

    it('are known to Kubernetes, with all their members', () => {
      const custom = new Set(['ServiceMonitor', 'VirtualService']);
      const strangers = objects.filter(({ kind }) => !custom.has(kind)).flatMap((object) => strangersIn(object));
      expect(strangers).toEqual([]);
    });

    it('have names of their own, and say where they live', () => {
      const names = objects.map(({ kind, metadata }) => `${kind} ${metadata.namespace}/${metadata.name}`);
      expect(new Set(names).size).toBe(names.length);
      const homeless = objects.filter(({ kind, metadata }) => kind !== 'Namespace' && !metadata.namespace);
      expect(homeless).toEqual([]);
    });

    it('select the pods of servers', () => {
      const { labels } = podOf(find(objects, 'Deployment')).metadata;
      const selectors = objects.flatMap(({ kind, metadata, spec }) => {
        const { selector, podSelector } = (spec ?? {}) as { selector?: object; podSelector?: object };
        const isOfJobs = metadata.name.endsWith('-jobs');
        return kind === 'VirtualService' || isOfJobs ? [] : [selector ?? podSelector ?? {}];
      });
      for (const selector of selectors) {
        const wanted = (selector as { matchLabels?: Record<string, string> }).matchLabels ?? selector;
        expect(labels).toMatchObject(wanted);
      }
    });

    it('run without privileges, and write to their own volumes only', () => {
      for (const owner of objects.filter(({ kind }) => kind === 'Deployment' || kind === 'Job')) {
        const { spec } = podOf(owner);
        expect(spec['securityContext']).toMatchObject({
          runAsNonRoot: true,
          runAsUser: 10001,
          seccompProfile: { type: 'RuntimeDefault' },
        });
        for (const { securityContext } of spec.containers)
          expect(securityContext).toEqual({
            allowPrivilegeEscalation: false,
            readOnlyRootFilesystem: true,
            capabilities: { drop: ['ALL'] },
          });
      }
      const server = serverOf(objects);
      const { STATE_DIR } = environmentOf(objects);
      expect(server.volumeMounts!.map(({ mountPath }) => mountPath)).toEqual(
        expect.arrayContaining([STATE_DIR, '/tmp']),
      );
    });

    it('ask probes at routes and ports that the server has', () => {
      const server = serverOf(objects);
      for (const probe of ['startupProbe', 'livenessProbe', 'readinessProbe']) {
        const { httpGet } = server[probe] as { httpGet: { path: string; port: string } };
        expect(Object.keys(openapi.paths)).toContain(httpGet.path);
        expect(server.ports!.map(({ name }) => name)).toContain(httpGet.port);
      }
    });

    it('give the server an environment that it takes', () => {
      const environment = environmentOf(objects);
      const config = loadConfig(environment);
      expect(config.jobs.kubernetes).not.toBeNull();
      const ports = Object.fromEntries(
        serverOf(objects).ports!.map(({ name, containerPort }) => [name, containerPort]),
      );
      expect(ports).toEqual({ http: config.port, reports: config.reportPort });
      // Pods of jobs report to the service's port that leads there.
      const service = find(objects, 'Service') as unknown as {
        spec: { ports: { port: number; targetPort: string }[] };
      };
      const reports = service.spec.ports.find(({ targetPort }) => targetPort === 'reports')!.port;
      const own = `http://${service['metadata' as never]['name']}.services.svc.cluster.local:${reports}`;
      expect([own, 'https://ims.nmn']).toContain(config.jobs.kubernetes!.serverUrl);
    });
  });
});

/** Values with a text in every place that takes free text, also in the names of annotations. */
function valuesWith(text: string): object {
  const strings = { [`name${text}`]: text };
  const tolerations = [{ key: text, operator: 'Equal', value: text, effect: 'NoSchedule' }];
  const peers = [{ podSelector: { matchLabels: strings } }];
  return {
    serviceAccount: { annotations: strings },
    s3: { sslValidate: `/${text}` },
    jobs: { pod: { nodeSelector: strings, tolerations, annotations: strings, labels: strings } },
    settings: { JOB_CUSTOMER_ACCESS_NETWORK_DOMAIN: text, S3_IMS_BUCKET: text, S3_REGION: text },
    service: { annotations: strings },
    virtualService: { enabled: true, gateways: [text], hosts: [text], prefix: `/${text}` },
    networkPolicy: {
      server: { from: peers },
      jobs: { sshFrom: peers, exceptCidrs: ['10.0.0.0/8'], extraEgress: [{ to: peers }] },
    },
    serviceMonitor: { enabled: true, labels: strings },
    podAnnotations: strings,
    podLabels: strings,
    nodeSelector: strings,
    tolerations,
    affinity: { podAffinity: strings },
    topologySpreadConstraints: [strings],
  };
}

/** The objects with another text in place of one, and without what is made from all settings together. */
function withText(value: unknown, from: string, to: string): unknown {
  if (typeof value === 'string') return value.split(from).join(to);
  if (Array.isArray(value)) return value.map((item) => withText(item, from, to));
  if (typeof value !== 'object' || value === null) return value;
  const members = Object.entries(value).filter(([name]) => name !== 'checksum/settings');
  return Object.fromEntries(
    members.map(([name, member]) => [
      name.split(from).join(to),
      withText(name === 'JOB_POD_SETTINGS' ? JSON.parse(member as string) : member, from, to),
    ]),
  );
}

describeWithHelm('hostile values', () => {
  let plain: ChartObject[];
  beforeAll(() => {
    plain = render(valuesWith('PLAIN'));
    expect(JSON.stringify(plain).split('PLAIN').length).toBeGreaterThan(40);
  });

  it.each([
    `'`,
    `"`,
    `\\`,
    `: #`,
    `- a`,
    `yes`,
    `~`,
    `0x1F`,
    `1e3`,
    ` trailing `,
    `a\nb: c\n---\nkind: Secret\n`,
    `\t|>`,
    `{{ .Release.Name }}`,
    `{{ fail "templated" }}`,
    `&a *a !!binary`,
    `%YAML`,
    `$(DATABASE_URL)`,
    '`id`; $(id)',
    `</script>&`,
    `é☃\u{1f600}\u2028`,
  ])('%j changes nothing but itself', (text) => {
    expect(withText(render(valuesWith(text)), text, text)).toEqual(withText(plain, 'PLAIN', text));
  });
});

describeWithHelm('values.schema.json', () => {
  it.each<[string, object, RegExp]>([
    ['a value that nobody knows', { replicas: 2 }, /additional properties 'replicas' not allowed/],
    ['one below another', { jobs: { image: { name: 'x' } } }, /\/jobs\/image.*'name' not allowed/],
    [
      'a setting that the server does not know',
      { settings: { LOG_LEVLE: 'info' } },
      /\/settings.*'LOG_LEVLE' not allowed/,
    ],
    ['a setting that the chart makes', { settings: { PORT: 1 } }, /'PORT' not allowed/],
    ['a setting of one machine', { settings: { JOB_SSH_PORTS: '1-2' } }, /'JOB_SSH_PORTS' not allowed/],
    ['a number that the server would refuse', { settings: { DATABASE_POOL_SIZE: 0 } }, /DATABASE_POOL_SIZE.*minimum/],
    ['a choice that there is not', { settings: { LOG_LEVEL: 'loud' } }, /LOG_LEVEL.*must be one of 'debug'/],
    ['text for a boolean', { settings: { JOB_ENABLE_DKMS: 'maybe' } }, /JOB_ENABLE_DKMS.*want boolean/],
    ['text for a number', { replicaCount: '2' }, /\/replicaCount.*want integer/],
    ['a negative number of servers', { replicaCount: -1 }, /\/replicaCount.*minimum/],
    ['a namespace that is none', { jobs: { namespace: 'a: b' } }, /\/jobs\/namespace.*does not match/],
    ['no secret of the database', { database: { secret: { name: '' } } }, /\/database\/secret\/name/],
    ['a secret that is no name', { s3: { secret: 'a\nb: c' } }, /\/s3\/secret.*does not match/],
    ['an image with a space', { image: { repository: 'a b' } }, /\/image\/repository/],
    ['a digest that is none', { image: { digest: 'latest' } }, /\/image\/digest/],
    ['a relative file of certificates', { s3: { sslValidate: 'ca.crt' } }, /\/s3\/sslValidate/],
    ['a store that is no url', { s3: { endpoint: 'rgw:8080' } }, /\/s3\/endpoint/],
    ['a member of pods that is not offered', { jobs: { pod: { hostNetwork: true } } }, /'hostNetwork' not allowed/],
    ['a network that is none', { networkPolicy: { jobs: { exceptCidrs: ['10.0.0.0'] } } }, /exceptCidrs\/0/],
    ['an amount that is none', { resources: { limits: { memory: 'lots' } } }, /\/resources\/limits\/memory/],
    ['an interval without a unit', { serviceMonitor: { interval: '30' } }, /\/serviceMonitor\/interval/],
  ])('refuses %s, and names it', (_, values, message) => {
    expect(() => render(values)).toThrow(message);
  });
});
