import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import type { ArtifactStore } from '../artifacts/artifact-store.js';
import { linkPath } from '../protocol/artifact-link.js';
import type { Arch } from '../protocol/arch.js';
import type { TemplateValue } from '../protocol/job-spec.js';
import type { Api } from './api.js';

/** A recipe that is to be registered. */
export interface NewRecipe {
  name: string;
  /** Path of its archive. */
  archive: string;
  values: TemplateValue[];
  /** `kiwi-ng` by default. */
  type?: string;
  /** `x86_64` by default. */
  arch?: Arch;
}

/**
 * Registers a recipe as operators' tools do: the record, then its archive with the md5 as metadata, then its link.
 * @returns the id of the record
 */
export async function registerRecipe(
  api: Api,
  store: ArtifactStore,
  bucket: string,
  { name, archive, values, type = 'kiwi-ng', arch = 'x86_64' }: NewRecipe,
): Promise<string> {
  const record = { name, recipe_type: type, linux_distribution: 'sles15', arch, template_dictionary: values };
  const { id } = await api.request<{ id: string }>('POST', '/recipes', record);
  const location = { bucket, key: `recipes/${id}/recipe.tar.gz` };
  const body = await readFile(archive);
  const metadata = { md5sum: createHash('md5').update(body).digest('hex') };
  const { etag } = await store.put(location, { body, metadata });
  await api.request('PATCH', `/recipes/${id}`, { link: { path: linkPath(location), etag, type: 's3' } });
  return id;
}
