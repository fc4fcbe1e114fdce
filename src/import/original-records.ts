import { ValidationPipe } from '../errors/validation.pipe.js';
import { canonicalTime, canonicalUuid } from '../errors/members.js';
import { Problem } from '../errors/problems.js';
import { readMetadata } from '../images/image-metadata.js';
import { CreateImage } from '../images/images.dto.js';
import { IMPORTED } from '../jobs/job.entity.js';
import { CreateJob } from '../jobs/jobs.dto.js';
import { resourceNames } from '../jobs/launcher/resource-names.js';
import { type Arch, ARCHES, DEFAULT_KERNEL_FILE_NAME } from '../protocol/arch.js';
import { isTerminal, JOB_STATUSES, type JobStatus } from '../protocol/job-status.js';
import { CreatePublicKey } from '../public-keys/public-keys.dto.js';
import { CreateRecipe } from '../recipes/recipes.dto.js';
import { CreateRemoteBuildNode } from '../remote-build-nodes/remote-build-nodes.dto.js';

/** A record as the original keeps it or tells it: whatever JSON was there. */
export type OriginalRecord = Readonly<Record<string, unknown>>;

/** A row of a table of ours, by column. */
export type Row = Record<string, unknown>;

/** The record cannot be taken over; the message says why. */
export class Unfit extends Error {}

const pipe = new ValidationPipe();

/** Checks members as a request that gives them is checked; those that the record has not stay absent. */
async function checked<T extends object>(type: new () => T, members: Row): Promise<T> {
  const given = Object.fromEntries(Object.entries(members).filter(([, value]) => value !== undefined));
  try {
    return (await pipe.transform(given, { type: 'body', metatype: type })) as T;
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    throw new Unfit(error.detail.replace(/^The input is not valid\. /, ''));
  }
}

function timeOf(record: OriginalRecord, member: 'created' | 'deleted'): string {
  const time = canonicalTime(record[member]);
  if (!time) throw new Unfit(`${member}: Not a valid time.`);
  return time;
}

/** Id and times of a record. */
function identityOf(record: OriginalRecord, isDeleted: boolean): Row {
  const id = canonicalUuid(record['id']);
  if (!id) throw new Unfit('id: Not a valid UUID.');
  return { id, created: timeOf(record, 'created'), deleted: isDeleted ? timeOf(record, 'deleted') : null };
}

/** The row of a public key. @throws Unfit */
export async function publicKeyRow(record: OriginalRecord, isDeleted: boolean): Promise<Row> {
  const { name, public_key } = await checked(CreatePublicKey, {
    name: record['name'],
    public_key: record['public_key'],
  });
  return { ...identityOf(record, isDeleted), name, public_key };
}

/** The row of a recipe; members that came with later versions of the original get the values that it gives them. @throws Unfit */
export async function recipeRow(record: OriginalRecord, isDeleted: boolean): Promise<Row> {
  const { name, recipe_type, linux_distribution, link, arch, require_dkms, template_dictionary } = record;
  const recipe = await checked(CreateRecipe, {
    name,
    recipe_type,
    linux_distribution,
    link,
    arch,
    require_dkms,
    template_dictionary,
  });
  return {
    ...identityOf(record, isDeleted),
    name: recipe.name,
    recipe_type: recipe.recipe_type,
    linux_distribution: recipe.linux_distribution,
    link: recipe.link ?? null,
    arch: recipe.arch ?? 'x86_64',
    require_dkms: recipe.require_dkms ?? true,
    template_dictionary: recipe.template_dictionary ?? [],
  };
}

/** The row of an image. @throws Unfit */
export async function imageRow(record: OriginalRecord, isDeleted: boolean): Promise<Row> {
  const { name, link, arch } = await checked(CreateImage, {
    name: record['name'],
    link: record['link'],
    arch: record['arch'],
  });
  const metadata = metadataOf(record['metadata'] ?? {});
  return { ...identityOf(record, isDeleted), name, link: link ?? null, arch: arch ?? 'x86_64', metadata };
}

/** Tags as they are kept; a tag that is named `key` is a tag here, and no way to write one. */
function metadataOf(given: unknown): unknown {
  const { key, ...others } = given as { key?: unknown };
  const read = readMetadata(typeof key === 'string' ? { ...others } : given);
  if ('errors' in read) throw new Unfit('metadata: Must be an object of texts.');
  return typeof key === 'string' ? { ...read.metadata, key } : read.metadata;
}

/** The row of a job that has ended. One that runs cannot be taken over. @throws Unfit */
export async function jobRow(record: OriginalRecord): Promise<Row> {
  const status = statusOf(record);
  const { deleted: _, ...identity } = identityOf(record, false);
  const job = await checked(CreateJob, requestOf(record));
  const arch = ARCHES.find((name) => name === record['arch']) ?? 'x86_64';
  return {
    ...identity,
    ...askedAndDecided(job, arch),
    status,
    arch,
    ssh_containers: Array.isArray(record['ssh_containers']) ? record['ssh_containers'] : null,
    resultant_image_id: canonicalUuid(record['resultant_image_id']),
    ...namesOf(record, identity['id'] as string, job.job_type),
    public_key: '',
    source: {},
    runner: IMPORTED,
  };
}

function statusOf(record: OriginalRecord): JobStatus {
  const status = JOB_STATUSES.find((name) => name === record['status']);
  if (!status) throw new Unfit(`status: Must be one of: ${JOB_STATUSES.join(', ')}.`);
  if (isTerminal(status)) return status;
  throw new Unfit(`it has not ended (${status}): end it in the original, or import again when it has`);
}

/** What the job was asked for, without what is null in old records. */
function requestOf(record: OriginalRecord): Row {
  const given = (member: string) => record[member] ?? undefined;
  return {
    job_type: record['job_type'],
    artifact_id: record['artifact_id'],
    public_key_id: record['public_key_id'],
    image_root_archive_name: record['image_root_archive_name'],
    enable_debug: given('enable_debug'),
    build_env_size: given('build_env_size'),
    job_mem_size: given('job_mem_size'),
    require_dkms: given('require_dkms'),
    kernel_file_name: given('kernel_file_name'),
    initrd_file_name: given('initrd_file_name'),
    kernel_parameters_file_name: given('kernel_parameters_file_name'),
  };
}

/** What the job was asked for, and what the original decides where a record does not say. */
function askedAndDecided(job: CreateJob, arch: Arch): Row {
  return {
    job_type: job.job_type,
    artifact_id: job.artifact_id,
    public_key_id: job.public_key_id,
    image_root_archive_name: job.image_root_archive_name,
    enable_debug: job.enable_debug ?? false,
    build_env_size: job.build_env_size ?? 10,
    job_mem_size: job.job_mem_size ?? 8,
    require_dkms: job.require_dkms ?? true,
    kernel_file_name: job.kernel_file_name ?? DEFAULT_KERNEL_FILE_NAME[arch],
    initrd_file_name: job.initrd_file_name ?? 'initrd',
    kernel_parameters_file_name: job.kernel_parameters_file_name ?? 'kernel-parameters',
  };
}

/** The Kubernetes objects of the job; records that are older than their names have those that the objects always had. */
function namesOf(record: OriginalRecord, id: string, jobType: 'create' | 'customize'): Row {
  const text = (member: string, fallback: string | null) =>
    typeof record[member] === 'string' ? record[member] : fallback;
  const names = resourceNames(id, jobType);
  return {
    ...Object.fromEntries(Object.entries(names).map(([member, name]) => [member, text(member, name)])),
    kubernetes_namespace: text('kubernetes_namespace', 'ims'),
    kubernetes_secret: text('kubernetes_secret', null),
    remote_build_node: text('remote_build_node', ''),
  };
}

/** The row of a remote build node. @throws Unfit */
export async function remoteBuildNodeRow(record: OriginalRecord): Promise<Row> {
  const { xname } = await checked(CreateRemoteBuildNode, { xname: record['xname'] });
  return { xname };
}
