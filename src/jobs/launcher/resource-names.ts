import type { JobType } from '../../protocol/job-status.js';

/** The names of what a job consists of on Kubernetes, as operators know them from the original. */
export interface ResourceNames {
  kubernetes_job: string;
  kubernetes_service: string;
  kubernetes_configmap: string;
  kubernetes_pvc: string;
}

/** The name of the Secret with a job's copy of the signing keys of the site, where it gets one. */
export function signingKeysName(jobId: string): string {
  return `cray-ims-${jobId}-signing-keys`;
}

/** The name of the Secret with what the worker of a job is told, the job's token among it. */
export function specSecretName(jobId: string): string {
  return `cray-ims-${jobId}-spec`;
}

/** Names of all parts of a job, made from nothing but its id and type. */
export function resourceNames(jobId: string, jobType: JobType): ResourceNames {
  const prefix = `cray-ims-${jobId}`;
  return {
    kubernetes_job: `${prefix}-${jobType}`,
    kubernetes_service: `${prefix}-service`,
    kubernetes_configmap: `${prefix}-configmap`,
    kubernetes_pvc: `${prefix}-job-claim`,
  };
}
