import type { RemoteBuildNodeStatus } from './remote-build-nodes.dto.js';

/** Asks a remote build node how it is. */
export abstract class NodeProbe {
  /** Never rejects, and answers within seconds: a node that cannot be asked has a status that says why. */
  abstract ask(xname: string): Promise<RemoteBuildNodeStatus>;
}
