import { type ArtifactLocation, findLocation } from '../protocol/artifact-link.js';
import { ARTIFACT_TYPE, type ImageManifest, type ManifestArtifact } from '../protocol/image-manifest.js';

/** The text is no manifest of version 1.0; the message says where and why. */
export class BadManifest extends Error {}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function textAt(object: Record<string, unknown>, member: string, place: string): string {
  const value = object[member];
  if (typeof value !== 'string') throw new BadManifest(`${place}.${member} must be text`);
  return value;
}

function parseArtifact(value: unknown, index: number): ManifestArtifact {
  const place = `artifacts[${index}]`;
  if (!isObject(value)) throw new BadManifest(`${place} must be an object`);
  if (!isObject(value['link'])) throw new BadManifest(`${place}.link must be an object`);
  const path = textAt(value['link'], 'path', `${place}.link`);
  const type = textAt(value['link'], 'type', `${place}.link`);
  if (type !== 's3') throw new BadManifest(`${place}.link.type must be s3`);
  if (!findLocation(path)) throw new BadManifest(`${place}.link.path must be s3://<bucket>/<key>`);
  const etag = value['link']['etag'] ?? '';
  if (typeof etag !== 'string') throw new BadManifest(`${place}.link.etag must be text`);
  const md5 = value['md5'];
  if (md5 !== undefined && md5 !== null && typeof md5 !== 'string') throw new BadManifest(`${place}.md5 must be text`);
  return { link: { path, etag, type }, ...(md5 ? { md5 } : {}), type: textAt(value, 'type', place) };
}

/**
 * Reads the content of a `manifest.json`, version 1.0.
 * @throws BadManifest
 */
export function parseManifest(content: Buffer): ImageManifest {
  const manifest = parseManifestList(content);
  const roots = manifest.artifacts.filter(isRootfs).length;
  if (roots !== 1)
    throw new BadManifest(`artifacts must have exactly one of the type ${ARTIFACT_TYPE.rootfs}, and has ${roots}`);
  return manifest;
}

/**
 * As `parseManifest`, but of any artifacts.
 * @throws BadManifest
 */
export function parseManifestList(content: Buffer): ImageManifest {
  let value: unknown;
  try {
    value = JSON.parse(content.toString('utf8'));
  } catch (error) {
    throw new BadManifest(`it is not JSON (${(error as Error).message})`);
  }
  if (!isObject(value)) throw new BadManifest('it must be a JSON object');
  if (value['version'] !== '1.0') throw new BadManifest('version must be "1.0"');
  if (!Array.isArray(value['artifacts'])) throw new BadManifest('artifacts must be a list');
  const artifacts = value['artifacts'].map(parseArtifact);
  return { version: '1.0', created: typeof value['created'] === 'string' ? value['created'] : '', artifacts };
}

/** The artifacts that can be read from a manifest, whatever else is wrong with it; null where it is no manifest at all. */
export function listedArtifacts(content: Buffer): { type: string; path: string; md5: string | null }[] | null {
  let value: unknown;
  try {
    value = JSON.parse(content.toString('utf8'));
  } catch {
    return null;
  }
  if (!isObject(value)) return null;
  const listed = Array.isArray(value['artifacts']) ? (value['artifacts'] as unknown[]) : [];
  return listed.flatMap((item, index) => {
    try {
      const { type, md5, link } = parseArtifact(item, index);
      return [{ type, path: link.path, md5: md5 ?? null }];
    } catch {
      return [];
    }
  });
}

/** A media type may have parameters. */
function isRootfs({ type }: ManifestArtifact): boolean {
  return type.split(';')[0]!.trim() === ARTIFACT_TYPE.rootfs;
}

/** The root file system of an image. */
export function rootfsOf(manifest: ImageManifest): ManifestArtifact {
  return manifest.artifacts.find(isRootfs)!;
}

/** Where an artifact of a checked manifest is. */
export function locationOf(artifact: ManifestArtifact): ArtifactLocation {
  return findLocation(artifact.link.path)!;
}
