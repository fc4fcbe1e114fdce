import type { KubernetesSettings } from '../../src/jobs/launcher/kubernetes/resources.js';

/** Settings of a site that changes nothing about pods. */
export function kubernetesSettings(values: Partial<KubernetesSettings> = {}): KubernetesSettings {
  return {
    namespace: 'ims',
    serverUrl: 'http://cray-ims.services',
    workerImage: 'localhost/ims-worker:dev',
    builderImage: 'localhost/ims-builder:dev',
    signingKeys: { namespace: 'services', secret: 'hpe-signing-key' },
    pullPolicy: 'IfNotPresent',
    podRetentionSeconds: 3600,
    customerAccess: { subnet: 'cmn', domain: 'shasta.local', addressPool: 'customer-management' },
    kataRuntime: 'kata-qemu',
    aarch64Runtime: 'kata-arm',
    mountServiceAccount: 'ims-service-job-mount',
    storageClass: null,
    storeSecret: 'ims-s3-credentials',
    store: { endpoint: 'http://rgw.local:8080', region: 'us-east-1', sslValidate: true },
    diskReserveMib: 64,
    emulation: false,
    pod: {},
    ...values,
  };
}
