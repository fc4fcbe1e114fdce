/** A rule of a Kubernetes Role. */
export interface PolicyRule {
  apiGroups: string[];
  resources: string[];
  /** Objects that it is for; all where it is not there. */
  resourceNames?: string[];
  verbs: string[];
}

/**
 * What the service account of the server may do in the namespace of jobs: what the launcher asks for, and nothing else. The Role of the
 * Helm chart equals this list, which a test compares.
 */
export const PERMISSIONS: readonly PolicyRule[] = [
  { apiGroups: ['batch'], resources: ['jobs'], verbs: ['create', 'delete', 'list', 'patch', 'watch'] },
  {
    apiGroups: [''],
    resources: ['services', 'persistentvolumeclaims'],
    verbs: ['create', 'delete', 'list', 'watch'],
  },
  { apiGroups: [''], resources: ['configmaps'], verbs: ['create', 'delete'] },
  // They go with the Job that owns them.
  { apiGroups: [''], resources: ['secrets'], verbs: ['create'] },
  { apiGroups: [''], resources: ['pods'], verbs: ['list', 'patch', 'watch'] },
  { apiGroups: [''], resources: ['pods/log'], verbs: ['get'] },
  { apiGroups: [''], resources: ['events'], verbs: ['list'] },
  { apiGroups: ['networking.istio.io'], resources: ['destinationrules'], verbs: ['create', 'delete'] },
];

/** What it may do besides in the namespace of the Secret with the signing keys of the site: read that one. */
export function signingKeysPermissions(secret: string): PolicyRule[] {
  return [{ apiGroups: [''], resources: ['secrets'], resourceNames: [secret], verbs: ['get'] }];
}
