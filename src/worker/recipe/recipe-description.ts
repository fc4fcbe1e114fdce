import { readdir } from 'node:fs/promises';
import { XMLParser } from 'fast-xml-parser';
import { isMissing, NotAFile, openInRoot } from '../in-root.js';

/** A repository from which the recipe installs. */
export interface Repository {
  /** Its alias, or its path. */
  name: string;
  /** Address of a file that a repository of its kind always has, with the user and the password that the recipe names. */
  probe: URL;
  /** The only architectures that it is for; empty for all. */
  architectures: readonly string[];
}

/** What we have to know of a recipe before KIWI-NG does its part. */
export interface RecipeDescription {
  /** Those that are reached by http or https, and that the build uses. */
  repositories: Repository[];
  /** As the recipe names it, or what KIWI-NG takes where it names none; null where there is no description. */
  packageManager: string | null;
  /** Whether packages are to be installed only where a key that is known has signed them. */
  checksSignatures: boolean;
}

/** Largest description that is read, bytes. */
const LIMIT = 8 * 1024 * 1024;
const DEFAULT_MANAGER = 'dnf4';
const NOTHING: RecipeDescription = { repositories: [], packageManager: null, checksSignatures: false };

/**
 * Reads the description of an unpacked recipe. What is wrong with it is for KIWI-NG to say, which does so better: then nothing is known of
 * it here.
 */
export async function readDescription(recipe: string): Promise<RecipeDescription> {
  const text = await readXml(recipe);
  return text === null ? NOTHING : parseDescription(text);
}

/** `config.xml`, or the only file that ends in `.kiwi`: what KIWI-NG looks for. */
async function readXml(recipe: string): Promise<string | null> {
  const names = await readdir(recipe);
  const name = names.includes('config.xml') ? 'config.xml' : names.find((file) => file.endsWith('.kiwi'));
  if (!name) return null;
  const file = await openInRoot(recipe, name).catch((error: unknown) => {
    if (isMissing(error) || error instanceof NotAFile) return null;
    throw error;
  });
  if (!file) return null;
  try {
    return (await file.stat()).size > LIMIT ? null : await file.readFile('utf8');
  } finally {
    await file.close();
  }
}

interface Element {
  [name: string]: unknown;
}

/** Elements of which there may be several. */
const LISTS = new Set(['repository', 'preferences', 'source', 'packagemanager', 'profiles', 'profile']);

const parser = new XMLParser({
  ignoreAttributes: false,
  attributeNamePrefix: '',
  parseTagValue: false,
  parseAttributeValue: false,
  isArray: (name, _path, _isLeaf, isAttribute) => !isAttribute && LISTS.has(name),
});

/** Reads the text of a description; one that is no description at all holds nothing. */
export function parseDescription(text: string): RecipeDescription {
  const image = parse(text);
  if (!image) return NOTHING;
  const profiles = importedProfiles(image);
  const repositories = elements(image, 'repository')
    .filter((repository) => isBuiltFrom(repository, profiles))
    .flatMap(repositoriesOf);
  const preferences = elements(image, 'preferences');
  const managers = preferences.flatMap((one) => one['packagemanager'] ?? []);
  const checks = preferences.map((one) => one['rpm-check-signatures']);
  return {
    repositories,
    packageManager: typeof managers[0] === 'string' ? managers[0].trim() : DEFAULT_MANAGER,
    checksSignatures: checks.some(isTrue),
  };
}

function parse(text: string): Element | null {
  try {
    const { image } = parser.parse(text) as { image?: unknown };
    return isElement(image) ? image : null;
  } catch {
    return null;
  }
}

function isElement(value: unknown): value is Element {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function elements(parent: Element, name: string): Element[] {
  const found = parent[name];
  return Array.isArray(found) ? found.filter(isElement) : [];
}

/** A boolean of XML Schema. */
function isTrue(value: unknown): boolean {
  return typeof value === 'string' && ['true', '1'].includes(value.trim());
}

/** A list as attributes have it; empty where there is no such attribute. */
function listOf(value: unknown): string[] {
  return typeof value === 'string' && value !== '' ? value.split(',') : [];
}

/** Profiles that are built where nobody names any. */
function importedProfiles(image: Element): Set<unknown> {
  const profiles = elements(image, 'profiles').flatMap((list) => elements(list, 'profile'));
  return new Set(profiles.filter((profile) => isTrue(profile['import'])).map(({ name }) => name));
}

/** Others are only configured in the image, or belong to another image of the same description. */
function isBuiltFrom({ imageonly, profiles }: Element, imported: ReadonlySet<unknown>): boolean {
  const only = listOf(profiles);
  return !isTrue(imageonly) && (only.length === 0 || only.some((profile) => imported.has(profile)));
}

function repositoriesOf(repository: Element): Repository[] {
  return elements(repository, 'source').flatMap(({ path }) => {
    // What variables of a package manager stand for, as in $basearch, is known to none but it.
    if (typeof path !== 'string' || path.includes('$') || !URL.canParse(path)) return [];
    const url = new URL(path);
    if (!['http:', 'https:'].includes(url.protocol)) return [];
    const alias = repository['alias'];
    const name = typeof alias === 'string' && alias ? alias : tellable(url);
    return [{ name, probe: probeOf(url, repository), architectures: listOf(repository['arch']) }];
  });
}

/** What is always there: the list of mirrors itself, the index of an rpm-md repository, or the release of a Debian one. */
function probeOf(base: URL, { type, distribution, sourcetype, username, password }: Element): URL {
  const probe = new URL(base);
  if (sourcetype !== 'metalink' && sourcetype !== 'mirrorlist')
    probe.pathname = `${base.pathname.replace(/\/+$/, '')}/${indexOf(type, distribution)}`;
  if (typeof username === 'string' && typeof password === 'string') {
    probe.username = encodeURIComponent(username);
    probe.password = encodeURIComponent(password);
  }
  return probe;
}

function indexOf(type: unknown, distribution: unknown): string {
  if (type !== 'apt-deb') return 'repodata/repomd.xml';
  return typeof distribution === 'string' && distribution ? `dists/${distribution}/Release` : 'Release';
}

/** An address without what is nobody's business: user, password, query. */
export function tellable(url: URL): string {
  return `${url.protocol}//${url.host}${url.pathname}`;
}
