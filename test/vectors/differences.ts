import type { RequestLine } from './scenario.js';

/** A line of the recordings that we answer otherwise on purpose. */
export interface Difference {
  /** Id of the difference in openapi/differences.md. */
  id: string;
  /** Statuses that we answer with. */
  status: number | number[];
}

interface Rule extends Difference {
  scenarios: RegExp;
  /** Name of the line. */
  line: RegExp;
}

const ANY = /./;

const RULES: Rule[] = [
  { id: 'missing-body', status: 400, scenarios: ANY, line: /: no body, no content-type$/ },
  { id: 'version', status: 200, scenarios: /^misc/, line: /^(GET \/version|Accept application\/xml)/ },
  {
    id: 'tidy-paths',
    status: 200,
    scenarios: /^misc/,
    line: /^GET (\/version\/|\/healthz\/(ready|live)\/|\/v3\/images\/|\/v3\/\/images)$/,
  },
  { id: 'known-methods', status: [400, 200], scenarios: /^misc/, line: /^(FOO method|lower case method)$/ },
  { id: 'strict-json', status: 400, scenarios: ANY, line: /NaN (token|value)$/ },
  { id: 'ids', status: 200, scenarios: /^public-keys/, line: /^get upper case id$/ },
  {
    id: 'ids',
    status: [200, 422],
    scenarios: /^jobs/,
    line: /^(patch resultant_image_id "|get after id patches|(artifact|public_key)_id "0x)/,
  },
  {
    id: 'public-keys-are-checked',
    status: 422,
    scenarios: /^public-keys/,
    line: /^(create unicode name|create lone surrogate|utf-(16|32)|public_key = (space|word))/,
  },
  {
    id: 'public-keys-are-checked',
    status: [422, 400],
    scenarios: /^jobs-yaml/,
    line: /^(key |(create|customize) with public_key )/,
  },

  {
    id: 'never-half-done',
    status: 200,
    scenarios: /^(images|recipes|persistence)/,
    line: /^(get after partial apply|partial: get)/,
  },
  { id: 'never-half-done', status: 200, scenarios: /^(images|recipes)/, line: /^list deleted/ },
  { id: 'links', status: 422, scenarios: /^(images|recipes)/, line: /^link http url$/ },
  {
    id: 'links',
    status: 200,
    scenarios: /^(images|recipes)/,
    line: /^patch link (same path without etag|same without etag|now with etag "")$/,
  },
  { id: 'lossless-delete', status: 204, scenarios: /^recipes/, line: /^delete all$/ },

  { id: 'manifests', status: [422, 201], scenarios: /^manifests/, line: /^(POST|PATCH) manifest / },
  { id: 'manifests', status: 422, scenarios: /^jobs-manifest/, line: /^customize, manifest / },

  {
    id: 'deleting-is-independent',
    status: 204,
    scenarios: /^images-root/,
    line: /^(delete one whose manifest is gone|delete all)$/,
  },
  { id: 'deleting-is-independent', status: 200, scenarios: /^images-root/, line: /^list (before|after) delete all$/ },
  { id: 'deleting-is-independent', status: 204, scenarios: /^cascade/, line: /^delete (image|all images), manifest / },
  { id: 'deleting-is-independent', status: [200, 404], scenarios: /^cascade/, line: /^(get|list)$/ },
  {
    id: 'lists-are-filtered',
    status: [200, 400],
    scenarios: /^(public-keys|recipes|images|jobs)-v3$/,
    line: /^list with (unknown query|(status|job_type|bad) filter( \(ignored\))?)/,
  },
  { id: 'booleans-in-queries', status: 204, scenarios: /^cascade/, line: /\?cascade=(on|y)$/ },
  {
    id: 'deleting-is-independent',
    status: [200, 204, 404, 422],
    scenarios: /^deleted-images/,
    line: /manifest (null|list|not json|no artifacts|artifacts null|artifact string|artifact without link|too large|gone)$|^permanently delete|deleted_manifest|(no manifest entry|artifact outside deleted\/)$/,
  },
  {
    id: 'lossless-delete',
    status: [200, 204, 404, 422],
    scenarios: /^deleted-images/,
    line: /artifacts without md5$|rootfs gone from deleted\/|^get it$|9 MiB/,
  },
  {
    id: 'shared-artifacts-stay',
    status: [200, 204],
    scenarios: /^deleted-images/,
    line: /^(soft delete 7|soft delete 8|undelete 7|undelete 8)/,
  },
  { id: 'undelete-overwrites-nothing', status: 409, scenarios: /^deleted-images/, line: /^undelete 9 / },
  { id: 'undelete-overwrites-nothing', status: 200, scenarios: /^deleted-images/, line: /^two images with one link$/ },
  {
    id: 'never-half-done',
    status: [200, 204],
    scenarios: /^deleted-images/,
    line: /^(soft delete all|list deleted|permanently delete all)/,
  },

  {
    id: 'node-names-are-checked',
    status: [422, 404, 200],
    scenarios: /^remote-build-nodes/,
    line: /^(xname (space|with slash|unicode)|get unicode|list)$/,
  },
  {
    id: 'node-status-in-our-words',
    status: 200,
    scenarios: /^remote-build-nodes/,
    line: /^(status of 127.0.0.1 without key|get node named status)$/,
  },

  { id: 'never-half-done', status: 200, scenarios: /^persistence/, line: /^list .* after restart$/ },
  { id: 'ids', status: 200, scenarios: /^jobs-quirks/, line: /^(PATCH resultant_image_id urn form|GET)$/ },
  { id: 'no-text-templates', status: 201, scenarios: /^jobs-quirks/, line: /^job with unrenderable name$/ },
  { id: 'jobs-keep-their-source', status: 204, scenarios: /^jobs-quirks/, line: /^(soft delete|undelete) recipe$/ },
  { id: 'jobs-stay-ended', status: 409, scenarios: /^jobs/, line: /^patch status |: status success$/ },
  {
    id: 'integers',
    status: 422,
    scenarios: /^jobs-validation/,
    line: /^(build_env_size|job_mem_size) ("1_000"|"٣"|1\.9|1(0){20})$/,
  },
  { id: 'bulk-delete-filters', status: [204, 400], scenarios: /^jobs-delete/, line: /^(delete \?|age |for age )/ },
  { id: 'jobs-stay-ended', status: 200, scenarios: /^jobs-delete/, line: /^(list|again)/ },
  {
    id: 'no-text-templates',
    status: 201,
    scenarios: /^jobs-yaml/,
    line: /^(create|customize) (archive name|\w+_file_name|with template null|packer job|with odd md5sum)/,
  },
];

/** What openapi/differences.md says of a line; null where it says nothing. */
export function findDifference(scenario: string, line: RequestLine): Difference | null {
  return RULES.find((rule) => rule.scenarios.test(scenario) && rule.line.test(line.name)) ?? null;
}

/** Ids of all differences that some line needs. */
export const DIFFERENCE_IDS = [...new Set(RULES.map(({ id }) => id))];
