/** Points at one artifact (an S3 object): the wire form that records, manifests and BOS session templates share. */
export interface ArtifactLink {
  /** `s3://<bucket>/<key>` */
  path: string;
  /** Entity tag without quotes; empty where it is unknown. */
  etag: string;
  /** Kind of store. Only `s3` is served. */
  type: string;
}

/** A bucket and a key, as taken from a link's path. */
export interface ArtifactLocation {
  bucket: string;
  key: string;
}

/** The path of an artifact in link form. */
export function linkPath({ bucket, key }: ArtifactLocation): string {
  return `s3://${bucket}/${key}`;
}

/**
 * Bucket and key of a link path, or null where the path has no usable bucket and key.
 * The key is taken as it stands: it may hold any character, `?`, `#` and `%` among them.
 */
export function findLocation(path: string): ArtifactLocation | null {
  const match = /^s3:\/\/([^/]+)\/(.+)$/s.exec(path);
  if (!match) return null;
  const [, bucket, key] = match as unknown as [string, string, string];
  return key.includes('\0') ? null : { bucket, key };
}
