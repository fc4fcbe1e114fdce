/*
 * Objects of the Kubernetes API, as far as this service writes and reads them. Names and meanings are those of the API
 * (https://kubernetes.io/docs/reference/kubernetes-api/); test/kubernetes/ checks what we write against its schema.
 */

/** What every object has. */
export interface ObjectMeta {
  name: string;
  namespace?: string;
  labels?: Record<string, string>;
  annotations?: Record<string, string>;
  ownerReferences?: OwnerReference[];
  uid?: string;
  resourceVersion?: string;
  creationTimestamp?: string;
  deletionTimestamp?: string;
}

/** When the owner goes, the cluster removes what names it. */
export interface OwnerReference {
  apiVersion: string;
  kind: string;
  name: string;
  uid: string;
}

export interface KubeObject {
  apiVersion?: string;
  kind?: string;
  metadata: ObjectMeta;
}

export interface ConfigMap extends KubeObject {
  data: Record<string, string>;
}

export interface Secret extends KubeObject {
  /** Contents in base64, by the name of a file. */
  data?: Record<string, string>;
}

export interface Service extends KubeObject {
  spec: {
    type: 'LoadBalancer';
    selector: Record<string, string>;
    publishNotReadyAddresses: boolean;
    ports: { name: string; protocol: 'TCP'; port: number; targetPort: number }[];
  };
  status?: { loadBalancer?: { ingress?: { ip?: string; hostname?: string }[] } };
}

export interface PersistentVolumeClaim extends KubeObject {
  spec: {
    accessModes: string[];
    resources: { requests: { storage: string } };
    storageClassName?: string;
  };
  status?: { phase?: 'Pending' | 'Bound' | 'Lost' };
}

/** Of Istio, where the cluster has it. */
export interface DestinationRule extends KubeObject {
  spec: { host: string; trafficPolicy: { tls: { mode: 'DISABLE' } } };
}

export interface Condition {
  type: string;
  status: 'True' | 'False' | 'Unknown';
  reason?: string;
  message?: string;
  lastTransitionTime?: string;
}

export interface BatchJob extends KubeObject {
  spec: {
    backoffLimit: number;
    suspend: boolean;
    podReplacementPolicy: 'Failed';
    ttlSecondsAfterFinished: number;
    template: { metadata: Omit<ObjectMeta, 'name'>; spec: PodSpec };
  };
  status?: { startTime?: string; conditions?: Condition[] };
}

export interface EnvVar {
  name: string;
  value?: string;
  valueFrom?: { secretKeyRef: { name: string; key: string } } | { resourceFieldRef: { resource: 'limits.cpu' } };
}

export interface VolumeMount {
  name: string;
  mountPath: string;
  subPath?: string;
  readOnly?: boolean;
}

export interface SecurityContext {
  privileged?: boolean;
  allowPrivilegeEscalation?: boolean;
  capabilities?: { add?: string[]; drop?: string[] };
}

export interface Resources {
  requests: Record<string, string>;
  limits: Record<string, string>;
}

export interface Container {
  name: string;
  image: string;
  imagePullPolicy: PullPolicy;
  args: string[];
  env: EnvVar[];
  volumeMounts: VolumeMount[];
  resources: Resources;
  securityContext: SecurityContext;
  ports?: { name: string; containerPort: number; protocol: 'TCP' }[];
}

export type PullPolicy = 'Always' | 'IfNotPresent' | 'Never';

export interface Toleration {
  key?: string;
  operator?: 'Exists' | 'Equal';
  value?: string;
  effect?: 'NoSchedule' | 'PreferNoSchedule' | 'NoExecute';
  tolerationSeconds?: number;
}

export interface PodSpec {
  restartPolicy: 'Never';
  automountServiceAccountToken: boolean;
  enableServiceLinks: boolean;
  terminationGracePeriodSeconds: number;
  serviceAccountName?: string;
  runtimeClassName?: string;
  priorityClassName?: string;
  nodeSelector?: Record<string, string>;
  tolerations?: Toleration[];
  imagePullSecrets?: { name: string }[];
  securityContext?: { seccompProfile: { type: 'RuntimeDefault' } };
  affinity: {
    podAntiAffinity: {
      preferredDuringSchedulingIgnoredDuringExecution: {
        weight: number;
        podAffinityTerm: { topologyKey: string; labelSelector: { matchLabels: Record<string, string> } };
      }[];
    };
  };
  initContainers: Container[];
  containers: Container[];
  volumes: {
    name: string;
    configMap?: { name: string };
    secret?: { secretName: string; optional: boolean };
    persistentVolumeClaim?: { claimName: string };
  }[];
}

/** How a container is, or how it ended. */
export interface ContainerStatus {
  name: string;
  image?: string;
  state?: {
    waiting?: { reason?: string; message?: string };
    running?: { startedAt?: string };
    terminated?: { exitCode: number; signal?: number; reason?: string; message?: string; finishedAt?: string };
  };
}

export interface Pod extends KubeObject {
  spec?: { nodeName?: string; activeDeadlineSeconds?: number };
  status?: {
    phase?: 'Pending' | 'Running' | 'Succeeded' | 'Failed' | 'Unknown';
    reason?: string;
    message?: string;
    conditions?: Condition[];
    initContainerStatuses?: ContainerStatus[];
    containerStatuses?: ContainerStatus[];
  };
}

/** Something that a controller says of an object. */
export interface Event extends KubeObject {
  type: 'Normal' | 'Warning';
  reason?: string;
  message?: string;
}

/** A kind of object by its name in urls. */
export interface Resource<T extends KubeObject = KubeObject> {
  /** Path of its API group, as `/apis/batch/v1`. */
  api: string;
  /** As `jobs`. */
  plural: string;
  /** Never there: it carries the type of the objects. */
  readonly object?: T;
}

function resource<T extends KubeObject>(api: string, plural: string): Resource<T> {
  return { api, plural };
}

export const RESOURCE = {
  job: resource<BatchJob>('/apis/batch/v1', 'jobs'),
  pod: resource<Pod>('/api/v1', 'pods'),
  configMap: resource<ConfigMap>('/api/v1', 'configmaps'),
  secret: resource<Secret>('/api/v1', 'secrets'),
  service: resource<Service>('/api/v1', 'services'),
  claim: resource<PersistentVolumeClaim>('/api/v1', 'persistentvolumeclaims'),
  event: resource<Event>('/api/v1', 'events'),
  destinationRule: resource<DestinationRule>('/apis/networking.istio.io/v1', 'destinationrules'),
};
