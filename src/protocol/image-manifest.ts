import type { ArtifactLink } from './artifact-link.js';

/** Media types of the artifacts of an image. */
export const ARTIFACT_TYPE = {
  rootfs: 'application/vnd.cray.image.rootfs.squashfs',
  kernel: 'application/vnd.cray.image.kernel',
  initrd: 'application/vnd.cray.image.initrd',
  debugKernel: 'application/vnd.cray.image.debug.kernel',
  bootParameters: 'application/vnd.cray.image.parameters.boot',
  /** The list of all packages of the image; ours. */
  packages: 'application/vnd.cray.image.packages',
} as const;

/** Largest manifest that is read, bytes. Boot services refuse larger ones too. */
export const MANIFEST_LIMIT = 1_048_576;

/** One artifact of a manifest. */
export interface ManifestArtifact {
  link: ArtifactLink;
  /** md5 of the content in hex; older manifests may lack it. */
  md5?: string;
  type: string;
}

/** Lists the artifacts of an image, version 1.0: the content of `manifest.json`. */
export interface ImageManifest {
  version: '1.0';
  /** `YYYY-mm-dd HH:MM:SS.ffffff`, UTC. */
  created: string;
  artifacts: ManifestArtifact[];
}
