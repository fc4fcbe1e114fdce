import type { Config } from '../config/config.js';
import type { JobSpec } from '../protocol/job-spec.js';
import { LaunchRefused } from './launcher/job-launcher.js';
import type { Job } from './job.entity.js';

/** What is decided only when a job is launched. */
export interface LaunchCircumstances {
  /** PEM, or null where the site has no CA. */
  caCertificate: string | null;
  /** Base url under which the worker reaches the server. */
  serverUrl: string;
}

/**
 * What the worker is told of a job. Pure.
 * @throws LaunchRefused for a job that no worker can run
 */
export function launchSpec(job: Job, circumstances: LaunchCircumstances, config: Config): JobSpec {
  const container = job.ssh_containers?.[0];
  if (job.job_type !== 'customize' || !container)
    throw new LaunchRefused('this server does not build images from recipes yet: only customize jobs run');
  return {
    job_id: job.id,
    job_type: job.job_type,
    arch: job.arch,
    image_root_archive_name: job.image_root_archive_name,
    kernel_file_name: job.kernel_file_name,
    initrd_file_name: job.initrd_file_name,
    kernel_parameters_file_name: job.kernel_parameters_file_name,
    require_dkms: job.require_dkms,
    build_env_size: job.build_env_size,
    job_mem_size: job.job_mem_size,
    public_key: job.public_key,
    source: { ...job.source, file: null },
    shell: {
      name: container.name ?? 'customize',
      jail: container.jail,
      listenAddress: config.jobs.local.listenAddress,
      port: container.connection_info.customer_access.port,
    },
    packing: config.jobs.packing,
    bucket: config.s3.bootImagesBucket,
    ca_certificate: circumstances.caCertificate,
    server_url: circumstances.serverUrl,
  };
}
