import type { ArtifactLink } from '../protocol/artifact-link.js';
import type { RecordArtifact } from './record-artifact.entity.js';
import type { LinkedKind } from './relocation.entity.js';

/** An artifact as a link leads to it. */
export interface FoundArtifact {
  /** Media type. */
  type: string;
  /** `s3://<bucket>/<key>` */
  path: string;
  /** md5 of the content in hex, where one is known. */
  md5: string | null;
}

/**
 * What relocations have to know of one kind of record. Every method may be repeated. All of them reject with ArtifactStoreFailure where
 * the store fails, and are then called again.
 */
export abstract class Relocatable {
  abstract readonly kind: LinkedKind;
  /** Its table, which has the columns `link`, `home_link`, `artifacts_known` and `deleted`. */
  abstract readonly table: string;
  /** Media type of the artifact that the link of a live record names. */
  abstract readonly linkedType: string;
  /** What a link leads to, the link's own artifact last; null where that cannot be told: then nothing is moved or removed. */
  abstract artifactsOf(link: ArtifactLink): Promise<FoundArtifact[] | null>;
  /**
   * What the link of a deleted record lists.
   * @throws Problem (422) that says what is missing or broken
   */
  abstract listedAway(link: ArtifactLink): Promise<FoundArtifact[]>;
  /** The link of a record whose artifacts are out of the way; makes what that link leads to. */
  abstract linkAway(recordId: string, home: ArtifactLink, artifacts: readonly RecordArtifact[]): Promise<ArtifactLink>;
  /** Removes what `linkAway` made. */
  abstract forgetAway(recordId: string): Promise<void>;
}
