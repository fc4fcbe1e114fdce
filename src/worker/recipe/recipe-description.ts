import { readdir } from 'node:fs/promises';
import { XMLParser } from 'fast-xml-parser';
import { isMissing, NotAFile, openInRoot } from '../in-root.js';

/** A repository from which the recipe installs. */
export interface Repository {
  /** Its alias, or its path. */
  name: string;
  /** Address of a file that a repository of its kind always has. */
  probe: URL;
}

/** What we have to know of a recipe before KIWI-NG does its part. */
export interface RecipeDescription {
  /** Those that are asked by http or https. */
  repositories: Repository[];
  /** As the recipe names it; null where it leaves that to KIWI-NG. */
  packageManager: string | null;
  /** Whether packages are to be installed only where a key that is known has signed them. */
  checksSignatures: boolean;
}

/** Largest description that is read, bytes. */
const LIMIT = 8 * 1024 * 1024;
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

const parser = new XMLParser({
  ignoreAttributes: false,
  attributeNamePrefix: '',
  parseTagValue: false,
  parseAttributeValue: false,
  isArray: (name) => ['repository', 'preferences', 'source', 'packagemanager'].includes(name),
});

/** Reads the text of a description; one that is no description at all holds nothing. */
export function parseDescription(text: string): RecipeDescription {
  const image = parse(text);
  if (!image) return NOTHING;
  const repositories = elements(image, 'repository').flatMap(repositoriesOf);
  const preferences = elements(image, 'preferences');
  const managers = preferences.flatMap((one) => one['packagemanager'] ?? []);
  const checks = preferences.map((one) => one['rpm-check-signatures']);
  return {
    repositories,
    packageManager: typeof managers[0] === 'string' ? managers[0].trim() : null,
    checksSignatures: checks.some((value) => typeof value === 'string' && value.trim() === 'true'),
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

function repositoriesOf(repository: Element): Repository[] {
  return elements(repository, 'source').flatMap(({ path }) => {
    if (typeof path !== 'string' || !URL.canParse(path)) return [];
    const url = new URL(path);
    if (!['http:', 'https:'].includes(url.protocol)) return [];
    const alias = repository['alias'];
    return [{ name: typeof alias === 'string' && alias ? alias : tellable(url), probe: probeOf(url, repository) }];
  });
}

/** What is always there: the index of an rpm-md repository, or the release of a Debian one. */
function probeOf(base: URL, { type, distribution }: Element): URL {
  const probe = new URL(base);
  probe.pathname = `${base.pathname.replace(/\/+$/, '')}/${indexOf(type, distribution)}`;
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
