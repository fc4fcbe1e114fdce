import { type Arch, DEFAULT_KERNEL_FILE_NAME } from '../protocol/arch.js';
import type { SourceSpec } from '../protocol/job-spec.js';
import type { JobType } from '../protocol/job-status.js';
import type { Config } from '../config/config.js';
import type { ConnectionInfo } from './launcher/job-launcher.js';
import { resourceNames } from './launcher/resource-names.js';
import type { Job, JobRecipe, SshContainer } from './job.entity.js';

/** Seconds for which the servers of a runner answer for its jobs without saying so again. */
export const LEASE_SECONDS = 60;

/** What a client asks for, defaults not yet filled in. */
export interface JobRequest {
  job_type: JobType;
  artifact_id: string;
  public_key_id: string;
  image_root_archive_name: string;
  enable_debug?: boolean;
  build_env_size?: number;
  job_mem_size?: number;
  kernel_file_name?: string;
  initrd_file_name?: string;
  kernel_parameters_file_name?: string;
  require_dkms?: boolean;
  ssh_containers?: { name?: string; jail?: boolean }[] | null;
}

/** What the job starts from: an image or a recipe, checked, with all of it that the job keeps as its own. */
export interface JobSource {
  arch: Arch;
  /** What the recipe asks for; null for images, which do not say. */
  requireDkms: boolean | null;
  artifact: Omit<SourceSpec, 'file'>;
  /** Null for images. */
  recipe: JobRecipe | null;
}

/** The decisions that are made outside of the plan. */
export interface JobCircumstances {
  id: string;
  created: Date;
  publicKey: string;
  connectionInfo: ConnectionInfo;
  /** Which launcher the job belongs to. */
  runner: string;
  /** By what its worker shows that it works for it. */
  token: string;
}

/** A customize job has a shell, and so has a create job whose failure is to be looked at. Others have none. */
function sshContainers(request: JobRequest, connectionInfo: ConnectionInfo): SshContainer[] | null {
  const shell = (container: { name?: string; jail?: boolean }): SshContainer => ({
    ...container,
    jail: container.jail ?? false,
    status: 'pending',
    connection_info: connectionInfo,
  });
  if (request.ssh_containers?.length) return request.ssh_containers.map(shell);
  if (request.job_type === 'customize') return [shell({ name: 'customize' })];
  if (request.enable_debug) return [shell({ name: 'debug' })];
  return request.ssh_containers ? [] : null;
}

/** aarch64 kernels are named otherwise than the default that the `cray` command line sends. */
function kernelFileName(request: JobRequest, arch: Arch): string {
  const name = request.kernel_file_name || DEFAULT_KERNEL_FILE_NAME[arch];
  return arch === 'aarch64' && name === DEFAULT_KERNEL_FILE_NAME.x86_64 ? DEFAULT_KERNEL_FILE_NAME.aarch64 : name;
}

/** The job's own word beats the recipe's, which beats the site's. aarch64 roots run in a virtual machine in any case. */
function requireDkms(request: JobRequest, source: JobSource, enableDkms: boolean): boolean {
  return source.arch === 'aarch64' || (request.require_dkms ?? source.requireDkms ?? enableDkms);
}

/** The record of a new job. Pure: every decision that a job begins with is here. */
export function planJob(
  request: JobRequest,
  source: JobSource,
  circumstances: JobCircumstances,
  jobs: Config['jobs'],
): Job {
  return {
    id: circumstances.id,
    created: circumstances.created,
    job_type: request.job_type,
    status: 'creating',
    artifact_id: request.artifact_id,
    public_key_id: request.public_key_id,
    image_root_archive_name: request.image_root_archive_name,
    kernel_file_name: kernelFileName(request, source.arch),
    initrd_file_name: request.initrd_file_name ?? 'initrd',
    kernel_parameters_file_name: request.kernel_parameters_file_name ?? 'kernel-parameters',
    enable_debug: request.enable_debug ?? false,
    build_env_size: request.build_env_size ?? jobs.buildEnvSizeGib,
    job_mem_size: request.job_mem_size ?? jobs.memSizeGib,
    require_dkms: requireDkms(request, source, jobs.enableDkms),
    arch: source.arch,
    ssh_containers: sshContainers(request, circumstances.connectionInfo),
    resultant_image_id: null,
    ...resourceNames(circumstances.id, request.job_type),
    kubernetes_namespace: jobs.namespace,
    kubernetes_secret: null,
    remote_build_node: '',
    status_reason: null,
    status_code: null,
    progress: null,
    packing: null,
    public_key: circumstances.publicKey,
    source: source.artifact,
    recipe: source.recipe,
    runner: circumstances.runner,
    token: circumstances.token,
    launched: null,
    lease_until: new Date(circumstances.created.getTime() + LEASE_SECONDS * 1000),
    ended: null,
    shell_deadline: null,
    shell_idle_seconds: jobs.shellIdleSeconds || null,
    released: null,
    deleted: null,
  };
}
