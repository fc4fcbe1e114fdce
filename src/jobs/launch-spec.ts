import type { Config } from '../config/config.js';
import type { JobSpec, ShellSpec } from '../protocol/job-spec.js';
import { LaunchRefused } from './launcher/job-launcher.js';
import type { Job } from './job.entity.js';

/** What is decided only when a job is launched. */
export interface LaunchCircumstances {
  /** PEM, or null where the site has no CA. */
  caCertificate: string | null;
  /** Base url under which the worker reaches the server. */
  serverUrl: string;
}

const MIB = 1024 * 1024;

/**
 * What the worker is told of a job. Pure.
 * @throws LaunchRefused for a job that no worker can run
 */
export function launchSpec(job: Job, circumstances: LaunchCircumstances, config: Config): JobSpec {
  const common = {
    job_id: job.id,
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
    packing: config.jobs.packing,
    bucket: config.s3.bootImagesBucket,
    ca_certificate: circumstances.caCertificate,
    server_url: circumstances.serverUrl,
    token: job.token,
  };
  const shell = shellSpec(job, config);
  if (job.job_type === 'create') return { ...common, job_type: 'create', ...buildSpec(job, config), shell };
  if (!shell) throw new LaunchRefused('this job has no ssh container: start it again, with one');
  return { ...common, job_type: 'customize', shell };
}

function shellSpec({ ssh_containers, job_type }: Job, { jobs }: Config): ShellSpec | null {
  const container = ssh_containers?.[0];
  if (!container) return null;
  return {
    name: container.name ?? (job_type === 'create' ? 'debug' : 'customize'),
    jail: container.jail,
    listenAddress: jobs.local.listenAddress,
    port: container.connection_info.customer_access.port,
  };
}

/** What only builds from recipes need. */
function buildSpec({ recipe, artifact_id }: Job, { jobs }: Config) {
  if (!recipe) throw new LaunchRefused('what this job is to build from was not kept: start it again');
  if (recipe.recipe_type !== 'kiwi-ng')
    throw new LaunchRefused(
      `recipes of the type ${recipe.recipe_type} are not supported: images are built from recipes of the type kiwi-ng only`,
    );
  return {
    recipe: { id: artifact_id, name: recipe.name, template_dictionary: recipe.template_dictionary },
    unpackLimits: { maxBytes: jobs.recipes.maxMib * MIB, maxEntries: jobs.recipes.maxEntries },
    repositorySeconds: jobs.recipes.repositorySeconds,
    buildSeconds: jobs.recipes.buildSeconds,
  };
}
