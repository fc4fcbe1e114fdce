import type { MountedRoot } from '../image-root.js';
import { openUserNamespace, type UserNamespace } from '../namespaces.js';
import { loginShellOf, type ShellContext, type ShellEnvironment, sshdConfigOf } from '../shell-environment.js';
import { makeBox } from './box.js';
import { ShellNetwork, shellResolvConf } from './network.js';
import { Sandbox } from './sandbox.js';

/** A shell on a machine that does other work besides: all that its user sees and reaches is made for it. */
export const sandboxShell: ShellEnvironment = {
  resolvConf: () => Promise.resolve(shellResolvConf()),

  async open(context, root, teardown) {
    const { job, directory, commands, log } = context;
    const users = await openUserNamespace();
    teardown.add(() => users.close());
    const mounted = await root.mountMapped(users);
    teardown.add(() => mounted.unmount());
    const hostKey = await fillBox(context, mounted, users);
    const network = await ShellNetwork.open(commands, relativeSocket(directory.networkSocket));
    teardown.add(() => network.close());
    const sandbox = await Sandbox.start(
      {
        directory: directory.path,
        box: directory.box,
        boxMount: directory.boxMount,
        imageRoot: mounted.path,
        hostName: hostNameOf(job.job_id),
        dkms: job.require_dkms,
        userNamespace: users,
        network: network.namespace,
      },
      commands,
      log,
    );
    teardown.add(() => sandbox.kill());
    const { listenAddress } = job.shell;
    const port = await network.forward(listenAddress, job.shell.port);
    const seen = job.shell.jail ? mounted.path : directory.box;
    return { hostKey, listenAddress, port, seen, ended: sandbox.ended, isUsed: () => sandbox.isUsed() };
  },
};

/** The kernel takes short paths for sockets only; this process stands in the job directory. */
function relativeSocket(socket: string): string {
  return socket.slice(socket.lastIndexOf('/') + 1);
}

function hostNameOf(jobId: string): string {
  return `ims-${jobId.slice(0, 8)}`;
}

async function fillBox({ job, directory, commands }: ShellContext, root: MountedRoot, users: UserNamespace) {
  const settings = {
    loginShell: loginShellOf(job, root.path),
    hostName: hostNameOf(job.job_id),
    sshdConfig: await sshdConfigOf(job, 'inet', commands),
    authorizedKeys: job.public_key,
    resolvConf: shellResolvConf(),
    caCertificate: job.ca_certificate,
  };
  return makeBox(directory.box, settings, users.ids, commands);
}
