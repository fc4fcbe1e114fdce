import { DESTINATION_RULES, type KubeObject } from '../../src/jobs/launcher/kubernetes/objects.js';
import {
  claimOf,
  configMapOf,
  destinationRuleOf,
  jobOf,
  type KubernetesSettings,
  ownerOf,
  serviceOf,
  specSecretOf,
} from '../../src/jobs/launcher/kubernetes/resources.js';
import { LaunchRefused } from '../../src/jobs/launcher/job-launcher.js';
import type { CreateSpec, CustomizeSpec, JobSpec } from '../../src/protocol/job-spec.js';
import { aCreateSpec, aJobSpec } from '../support/job-spec.js';
import { kubernetesSettings } from '../support/kubernetes-settings.js';
import { strangersIn } from './schema.js';

const ID = '06c3dd57-f347-4229-85b3-1d024a947b3f';
const OWNER = { apiVersion: 'batch/v1', kind: 'Job', name: `cray-ims-${ID}-customize`, uid: 'u' };
const LABELS = {
  'app.kubernetes.io/name': 'ims-job',
  'app.kubernetes.io/managed-by': 'cray-ims',
  'app.kubernetes.io/instance': ID,
};
/** Of all parts; the last one tells whose job it is where several services use a namespace. */
const MARKED = { ...LABELS, 'cray-ims/server': expect.stringMatching(/^[0-9a-f]{16}$/) as unknown as string };
const spec = (values: Partial<CustomizeSpec> = {}) => aJobSpec({ job_id: ID, ...values });

/** All objects of a job, as they are sent. */
function objectsOf(job: JobSpec, settings: KubernetesSettings): object[] {
  const made = jobOf(job, settings);
  const owner = ownerOf({ ...made, metadata: { ...made.metadata, uid: 'u' } });
  return [
    made,
    specSecretOf(job, settings, owner),
    configMapOf(job, settings, owner, '-----BEGIN CERTIFICATE-----'),
    claimOf(job, settings, owner),
    serviceOf(job, settings, owner),
  ];
}

const decoded = (base64: string) => JSON.parse(Buffer.from(base64, 'base64').toString()) as unknown;

const POD_SETTINGS: KubernetesSettings['pod'] = {
  nodeSelector: { 'ims/jobs': 'yes' },
  tolerations: [{ key: 'ims', operator: 'Exists', effect: 'NoSchedule' }],
  annotations: { a: 'b' },
  labels: { team: 'images' },
  priorityClassName: 'high',
  imagePullSecrets: [{ name: 'registry' }],
  cpuRequest: '500m',
  cpuLimit: '4',
};

describe('the objects of a job', () => {
  it('are known to Kubernetes member by member', () => {
    for (const require_dkms of [true, false])
      for (const pod of [{}, POD_SETTINGS])
        for (const job of [spec({ require_dkms }), aCreateSpec({ require_dkms, shell: spec().shell })])
          for (const object of objectsOf(job, kubernetesSettings({ pod, storageClass: 'fast' })))
            expect(strangersIn(object)).toEqual([]);
  });

  it('show strangers where there are some', () => {
    const job = jobOf(spec(), kubernetesSettings());
    const wrong = structuredClone(job) as unknown as { spec: { template: { spec: { containers: object[] } } } };
    Object.assign(wrong.spec.template.spec.containers[0]!, { resource: {}, args: 'none' });
    expect(strangersIn(wrong as never)).toEqual([
      '/spec/template/spec/containers/0/args: no list',
      '/spec/template/spec/containers/0/resource: unknown',
    ]);
  });

  it('have a Service as operators know it', () => {
    expect(serviceOf(spec(), kubernetesSettings(), OWNER)).toEqual({
      apiVersion: 'v1',
      kind: 'Service',
      metadata: {
        name: `cray-ims-${ID}-service`,
        namespace: 'ims',
        labels: MARKED,
        ownerReferences: [OWNER],
        annotations: {
          'external-dns.alpha.kubernetes.io/hostname': `${ID}.ims.cmn.shasta.local`,
          'metallb.universe.tf/address-pool': 'customer-management',
        },
      },
      spec: {
        type: 'LoadBalancer',
        selector: LABELS,
        publishNotReadyAddresses: true,
        ports: [{ name: 'ssh', protocol: 'TCP', port: 22, targetPort: 22 }],
      },
    });
  });

  it('have a claim of five times the size that was asked for', () => {
    expect(claimOf(spec({ build_env_size: 7 }), kubernetesSettings({ storageClass: 'fast' }), OWNER)).toEqual({
      apiVersion: 'v1',
      kind: 'PersistentVolumeClaim',
      metadata: { name: `cray-ims-${ID}-job-claim`, namespace: 'ims', labels: MARKED, ownerReferences: [OWNER] },
      spec: { accessModes: ['ReadWriteOnce'], resources: { requests: { storage: '35Gi' } }, storageClassName: 'fast' },
    });
  });

  it('have a rule that keeps the mesh out', () => {
    expect(destinationRuleOf(spec(), kubernetesSettings(), OWNER, DESTINATION_RULES[0]!)).toEqual({
      apiVersion: 'networking.istio.io/v1',
      kind: 'DestinationRule',
      metadata: { name: `cray-ims-${ID}-service`, namespace: 'ims', labels: MARKED, ownerReferences: [OWNER] },
      spec: { host: `cray-ims-${ID}-service.ims.svc.cluster.local`, trafficPolicy: { tls: { mode: 'DISABLE' } } },
    });
  });

  it('have a Secret from which the worker reads the job', () => {
    const job = spec();
    const { data, ...rest } = specSecretOf(job, kubernetesSettings(), OWNER);
    expect(rest).toEqual({
      apiVersion: 'v1',
      kind: 'Secret',
      metadata: { name: `cray-ims-${ID}-spec`, namespace: 'ims', labels: MARKED, ownerReferences: [OWNER] },
    });
    expect(Object.keys(data!)).toEqual(['job.json']);
    expect(decoded(data!['job.json']!)).toEqual(job);
  });

  it('have a ConfigMap from which operators read the key, and nobody the token', () => {
    const job = spec({ token: 'of-nobody-else' });
    expect(configMapOf(job, kubernetesSettings(), OWNER, null)).toEqual({
      apiVersion: 'v1',
      kind: 'ConfigMap',
      metadata: { name: `cray-ims-${ID}-configmap`, namespace: 'ims', labels: MARKED, ownerReferences: [OWNER] },
      data: { authorized_keys: job.public_key },
    });
    const inTheOpen = objectsOf(job, kubernetesSettings()).filter((object) => (object as KubeObject).kind !== 'Secret');
    expect(inTheOpen).toHaveLength(4);
    expect(JSON.stringify(inTheOpen)).not.toContain(job.token);
  });
});

describe('the Job of a build', () => {
  const pod = (values: Partial<CreateSpec> = {}, settings: Partial<KubernetesSettings> = {}) =>
    jobOf(aCreateSpec({ job_id: ID, ...values }), kubernetesSettings(settings)).spec.template.spec;
  const containers = (values: Partial<CreateSpec> = {}) => {
    const { initContainers, containers: last } = pod(values);
    return [...initContainers, ...last];
  };
  const shell = spec().shell;

  it('has the containers that operators know, one after the other, with a shell where a failed build is to be looked at', () => {
    const names = ['fetch-recipe', 'wait-for-repos', 'build-ca-rpm', 'build-image'];
    expect(pod().initContainers.map(({ name, args }) => [name, args[0]])).toEqual(names.map((name) => [name, name]));
    expect(pod().containers.map(({ name }) => name)).toEqual(['buildenv-sidecar']);
    expect(pod({ shell }).containers.map(({ name }) => name)).toEqual(['buildenv-sidecar', 'sshd']);
  });

  it('runs the image that can build, and is refused where the site has none', () => {
    expect(new Set(containers({ shell }).map(({ image }) => image))).toEqual(new Set(['localhost/ims-builder:dev']));
    expect(() => pod({}, { builderImage: null })).toThrow(LaunchRefused);
    expect(() => pod({}, { builderImage: null })).toThrow(/JOB_BUILDER_IMAGE/);
  });

  it('gives the keys of the store to no container that runs what a recipe holds', () => {
    const withKeys = containers({ shell }).filter(({ env }) => env.some(({ name }) => name === 'S3_SECRET_KEY'));
    expect(withKeys.map(({ name }) => name)).toEqual(['fetch-recipe', 'buildenv-sidecar']);
  });

  it('shows the shell what a failed build left, and how it ended', () => {
    const { volumeMounts } = containers({ shell }).at(-1)!;
    expect(volumeMounts.filter(({ name }) => name === 'work')).toEqual([
      { name: 'work', mountPath: '/var/lib/ims/job/build.json', subPath: 'build.json', readOnly: true },
      ...['tree', 'pristine', 'hand-over'].map((subPath) => ({
        name: 'work',
        mountPath: `/var/lib/ims/job/${subPath}`,
        subPath,
      })),
      { name: 'work', mountPath: '/mnt/image/image-root', subPath: 'tree' },
    ]);
  });

  it('is privileged only where package managers work', () => {
    const privileged = containers({ shell }).filter(({ securityContext }) => securityContext.privileged);
    expect(privileged.map(({ name }) => name)).toEqual(['build-image']);
  });

  it('lets the container that fills in templates, and no other, become nobody for that', () => {
    const able = containers({ shell }).filter(({ securityContext }) => {
      const added: readonly string[] = securityContext.capabilities?.add ?? [];
      return added.includes('SETUID') && added.includes('SETGID');
    });
    expect(able.map(({ name }) => name)).toEqual(['fetch-recipe']);
  });

  it('asks for the memory of the job where it builds', () => {
    const [build] = containers({ job_mem_size: 3 }).filter(({ name }) => name === 'build-image');
    expect(build!.resources).toEqual({ requests: { memory: '3Gi' }, limits: { memory: '15Gi' } });
  });

  it('checks packages by keys that may be missing', () => {
    expect(pod().volumes).toContainEqual({
      name: 'keys',
      secret: { secretName: `cray-ims-${ID}-signing-keys`, optional: true },
    });
    const [build] = containers().filter(({ name }) => name === 'build-image');
    expect(build!.volumeMounts).toContainEqual({ name: 'keys', mountPath: '/signing-keys', readOnly: true });
    expect(build!.env).toContainEqual({ name: 'SIGNING_KEYS_DIR', value: '/signing-keys' });
  });
});

it.each([
  ['a build', aCreateSpec({ arch: 'aarch64' }), true],
  ['a shell that may mount', aJobSpec({ arch: 'aarch64', require_dkms: true }), true],
  ['a shell that may not', aJobSpec(), false],
])('containers of %s know whether one of them, which is privileged, can register the emulator', (_what, job, can) => {
  const emulating = (settings: KubernetesSettings) => {
    const { initContainers, containers } = jobOf(job, settings).spec.template.spec;
    return [...initContainers, ...containers].map(({ env }) =>
      env.some(({ name, value }) => name === 'EMULATION' && value === 'true'),
    );
  };
  expect(new Set(emulating(kubernetesSettings({ emulation: true })))).toEqual(new Set([can]));
  expect(new Set(emulating(kubernetesSettings()))).toEqual(new Set([false]));
});

it.each([
  ['x86_64', 'amd64'],
  ['aarch64', 'arm64'],
] as const)('a job on an image of %s goes to a node of that kind, where there is one', (arch, value) => {
  for (const job of [aJobSpec({ arch }), aCreateSpec({ arch })])
    expect(jobOf(job, kubernetesSettings()).spec.template.spec.affinity.nodeAffinity).toEqual({
      preferredDuringSchedulingIgnoredDuringExecution: [
        {
          weight: 100,
          preference: { matchExpressions: [{ key: 'kubernetes.io/arch', operator: 'In', values: [value] }] },
        },
      ],
    });
});

/** Texts that end a value where somebody puts it into a text of such a kind. */
const WILD = [
  ['YAML', 'a: {b}\n- c # d\n"\'`|>&*!%@'],
  ['shell', '$(reboot) `reboot` ; reboot && "\' \\ | > /etc/passwd\n'],
  ['sshd_config', 'x\nPermitRootLogin yes\nForceCommand reboot'],
  ['JSON and Kubernetes variables', '","job_type":"create" $(S3_SECRET_KEY) $$(X) \u0000\u2028'],
] as const;

describe('the Job', () => {
  const pod = (values: Partial<CustomizeSpec> = {}, settings: Partial<KubernetesSettings> = {}) =>
    jobOf(spec(values), kubernetesSettings(settings)).spec.template.spec;
  const container = (name: string, values: Partial<CustomizeSpec> = {}, settings: Partial<KubernetesSettings> = {}) => {
    const { initContainers, containers } = pod(values, settings);
    return [...initContainers, ...containers].find((candidate) => candidate.name === name)!;
  };

  it('stands still until it is let go, is tried once, and is never done twice at a time', () => {
    const { metadata, spec: job } = jobOf(spec(), kubernetesSettings());
    expect(metadata).toEqual({ name: `cray-ims-${ID}-customize`, namespace: 'ims', labels: MARKED });
    expect(job).toMatchObject({
      backoffLimit: 0,
      suspend: true,
      podReplacementPolicy: 'Failed',
      ttlSecondsAfterFinished: 3600,
    });
    expect(job.template.metadata).toEqual({
      labels: { ...MARKED, 'sidecar.istio.io/inject': 'false' },
      annotations: { 'sidecar.istio.io/inject': 'false' },
    });
  });

  it('has the containers that operators know, each with its phase', () => {
    const { initContainers, containers } = pod();
    expect(initContainers.map(({ name, args }) => [name, args[0]])).toEqual([['prepare', 'fetch-image']]);
    expect(containers.map(({ name, args }) => [name, args[0]])).toEqual([
      ['buildenv-sidecar', 'finish'],
      ['sshd', 'shell'],
    ]);
  });

  it('is a plain pod without dkms', () => {
    const { containers, initContainers, volumes, affinity, ...rest } = pod();
    expect(rest).toEqual({
      restartPolicy: 'Never',
      automountServiceAccountToken: false,
      enableServiceLinks: false,
      terminationGracePeriodSeconds: 10,
      securityContext: { seccompProfile: { type: 'RuntimeDefault' } },
    });
    expect([...initContainers, ...containers].some(({ securityContext }) => securityContext.privileged)).toBe(false);
    expect(volumes).toEqual([
      {
        name: 'spec',
        projected: {
          sources: [{ secret: { name: `cray-ims-${ID}-spec` } }, { configMap: { name: `cray-ims-${ID}-configmap` } }],
        },
      },
      { name: 'work', persistentVolumeClaim: { claimName: `cray-ims-${ID}-job-claim` } },
    ]);
    expect(affinity.podAntiAffinity.preferredDuringSchedulingIgnoredDuringExecution[0]!.podAffinityTerm).toEqual({
      topologyKey: 'kubernetes.io/hostname',
      labelSelector: {
        matchLabels: { 'app.kubernetes.io/name': 'ims-job', 'app.kubernetes.io/managed-by': 'cray-ims' },
      },
    });
  });

  it('may mount with dkms, in a virtual machine and by an account for it', () => {
    expect(pod({ require_dkms: true })).toMatchObject({
      runtimeClassName: 'kata-qemu',
      serviceAccountName: 'ims-service-job-mount',
    });
    expect(pod({ require_dkms: true, arch: 'aarch64' }).runtimeClassName).toBe('kata-arm');
    expect(pod({ require_dkms: true }, { kataRuntime: '' })).not.toHaveProperty('runtimeClassName');
    for (const name of ['sshd', 'buildenv-sidecar'])
      expect(container(name, { require_dkms: true }).securityContext).toEqual({
        privileged: true,
        capabilities: { add: ['SYS_ADMIN'] },
      });
    expect(container('prepare', { require_dkms: true }).securityContext).toEqual({
      allowPrivilegeEscalation: false,
      capabilities: { drop: ['ALL'] },
    });
  });

  it('gives the shell no keys of the store, and of the disk only what its user works on', () => {
    const names = (name: string) => container(name).env.map((variable) => variable.name);
    expect(names('sshd').filter((name) => name.startsWith('S3_'))).toEqual([]);
    for (const name of ['prepare', 'buildenv-sidecar'])
      expect(names(name)).toEqual(expect.arrayContaining(['S3_ENDPOINT', 'S3_ACCESS_KEY', 'S3_SECRET_KEY']));
    expect(container('buildenv-sidecar').env).toContainEqual({
      name: 'S3_SECRET_KEY',
      valueFrom: { secretKeyRef: { name: 'ims-s3-credentials', key: 'secret_key' } },
    });
    expect(container('sshd').volumeMounts.filter(({ name }) => name === 'work')).toEqual([
      { name: 'work', mountPath: '/var/lib/ims/job/source.sqsh', subPath: 'source.sqsh', readOnly: true },
      { name: 'work', mountPath: '/var/lib/ims/job/layer', subPath: 'layer' },
      { name: 'work', mountPath: '/var/lib/ims/job/tree', subPath: 'tree' },
      { name: 'work', mountPath: '/var/lib/ims/job/pristine', subPath: 'pristine' },
      { name: 'work', mountPath: '/var/lib/ims/job/hand-over', subPath: 'hand-over' },
      { name: 'work', mountPath: '/mnt/image/image-root', subPath: 'tree' },
    ]);
  });

  it('asks for the memory of the job once, and may take five times that', () => {
    expect(container('sshd', { job_mem_size: 3 }).resources).toEqual({
      requests: { memory: '3Gi' },
      limits: { memory: '15Gi' },
    });
    expect(container('buildenv-sidecar', { job_mem_size: 3 }).resources).toEqual({
      requests: { memory: '256Mi' },
      limits: { memory: '15Gi' },
    });
  });

  it('takes over what the site decides about pods', () => {
    expect(pod({}, { pod: POD_SETTINGS })).toMatchObject({
      nodeSelector: { 'ims/jobs': 'yes' },
      tolerations: [{ key: 'ims', operator: 'Exists', effect: 'NoSchedule' }],
      priorityClassName: 'high',
      imagePullSecrets: [{ name: 'registry' }],
    });
    expect(container('sshd', {}, { pod: POD_SETTINGS }).resources).toMatchObject({
      requests: { cpu: '500m' },
      limits: { cpu: '4' },
    });
    const { template } = jobOf(
      spec(),
      kubernetesSettings({ pod: { ...POD_SETTINGS, labels: { ...LABELS, 'app.kubernetes.io/instance': 'x' } } }),
    ).spec;
    expect(template.metadata.labels).toMatchObject(LABELS);
  });

  it.each(WILD)('changes nothing but the value where it holds metacharacters of %s', (_, text) => {
    const settings = kubernetesSettings();
    const plain = spec();
    const wild: JobSpec = {
      ...plain,
      image_root_archive_name: text,
      kernel_file_name: text,
      initrd_file_name: text,
      kernel_parameters_file_name: text,
      public_key: text,
      shell: { ...plain.shell, name: text },
      source: { ...plain.source, artifact: { bucket: text, key: text }, etag: text },
    };
    const [job, secret, configMap, ...others] = objectsOf(wild, settings) as [
      object,
      { data: Record<string, string> },
      { data: Record<string, string> },
      ...object[],
    ];
    const [plainJob, , , ...plainOthers] = objectsOf(plain, settings);
    expect([job, ...others]).toEqual([plainJob, ...plainOthers]);
    expect(decoded(secret.data['job.json']!)).toEqual(wild);
    expect(configMap.data['authorized_keys']).toBe(text);
  });

  it.each(WILD)('changes nothing but the value of a build where it holds metacharacters of %s', (_, text) => {
    const plain = aCreateSpec({ job_id: ID });
    const wild: JobSpec = {
      ...plain,
      recipe: { id: text, name: text, template_dictionary: [{ key: text, value: text }] },
      ca_certificate: text,
      token: text,
    };
    const [job, secret, ...others] = objectsOf(wild, kubernetesSettings());
    const [plainJob, , ...plainOthers] = objectsOf(plain, kubernetesSettings());
    expect([job, ...others]).toEqual([plainJob, ...plainOthers]);
    expect(decoded((secret as { data: Record<string, string> }).data['job.json']!)).toEqual(wild);
  });
});
