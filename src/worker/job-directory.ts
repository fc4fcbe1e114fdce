import { join } from 'node:path';
import { JOB_FILES } from '../protocol/pod-paths.js';
import { BUILD_FILE, OUTCOME_FILE, SPEC_FILE } from '../protocol/signals.js';

/**
 * Names of all that phases keep of a job. The directory is one file system, is shared by all phases of the job and by nothing else,
 * and outlives each of them: what one phase hands to the next stands here.
 */
export class JobDirectory {
  constructor(readonly path: string) {}

  /** What is to be done. */
  get spec(): string {
    return this.at(SPEC_FILE);
  }

  /** The SquashFS image that is customized. Written by rename, so that it is whole where it is there. Never changed: it may be a link into the store. */
  get source(): string {
    return this.at(JOB_FILES.source);
  }

  /** Where the source is mounted. */
  get lower(): string {
    return this.at('lower');
  }

  /** Holds the upper and the work directory of the overlay, so that both can be mapped in one mount. */
  get layer(): string {
    return this.at(JOB_FILES.layer);
  }

  /** What the user changed. */
  get upper(): string {
    return join(this.layer, 'upper');
  }

  /** Scratch of the overlay. */
  get work(): string {
    return join(this.layer, 'work');
  }

  /** The source with its owners mapped to those of the shell. */
  get mappedLower(): string {
    return this.at('lower.mapped');
  }

  /** The layer with its owners mapped to those of the shell. */
  get mappedLayer(): string {
    return this.at('layer.mapped');
  }

  /** The archive of the recipe, until it is unpacked. */
  get archive(): string {
    return this.at('recipe.archive');
  }

  /** The recipe, unpacked, its templates filled in. */
  get recipe(): string {
    return this.at('recipe');
  }

  /** The certificate of the site CA as a package. */
  get caPackage(): string {
    return this.at('cray_ca_cert-1.0.1-1.noarch.rpm');
  }

  /** The public key of that package; missing where it is not signed. */
  get caKey(): string {
    return this.at('cray_ca_cert.asc');
  }

  /** What KIWI-NG makes. */
  get build(): string {
    return this.at('build');
  }

  /** Settings of KIWI-NG. */
  get kiwiConfig(): string {
    return this.at('kiwi.yml');
  }

  /** Stands in for directories of the machine that a build would write to. */
  get scratch(): string {
    return this.at('scratch');
  }

  /** How the build ended. */
  get buildOutcome(): string {
    return this.at(BUILD_FILE);
  }

  /** The list of all packages of the image, as KIWI-NG writes it; missing where it wrote none. */
  get packages(): string {
    return this.at('packages');
  }

  /** The whole image root: unpacked where it cannot be mounted, or built. */
  get tree(): string {
    return this.at(JOB_FILES.tree);
  }

  /** Holds what the image had before the shell, where no source is mounted to take it from. */
  get pristine(): string {
    return this.at(JOB_FILES.pristine);
  }

  /** Where the image root is mounted. */
  get merged(): string {
    return this.at('merged');
  }

  /** Root of the environment that the user lands in. */
  get box(): string {
    return this.at('box');
  }

  /** Where the environment is mounted before it becomes the root. */
  get boxMount(): string {
    return this.at('box.mount');
  }

  /** Socket through which the network of the shell is told what to forward. */
  get networkSocket(): string {
    return this.at('network.sock');
  }

  /** What the shell hands to the phase after it. There from the start of each phase, and always on the disk of the job. */
  get handOver(): string {
    return this.at(JOB_FILES.handOver);
  }

  /** How the shell ended. */
  get outcome(): string {
    return join(this.handOver, OUTCOME_FILE);
  }

  /** The new image, while it is packed. */
  get image(): string {
    return this.at('new.sqsh');
  }

  private at(name: string): string {
    return join(this.path, name);
  }
}
