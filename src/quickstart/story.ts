import { execFile } from 'node:child_process';
import { writeFile } from 'node:fs/promises';
import path from 'node:path';
import { promisify } from 'node:util';
import type { JobView } from './api.js';
import { deleteJob, downloadImage, expectAll, type StoryContext } from './image-checks.js';

const run = promisify(execFile);

/** What the story of an image that is customized needs. */
export interface CustomizeContext extends StoryContext {
  imageId: string;
}

/** What the user of the story changes. */
const MESSAGE = 'changed by the quickstart';
const CHANGES = [
  `echo '${MESSAGE}' > etc/motd`,
  'rm etc/hostname',
  "echo 'admin:x:1000:1000::/home:/bin/sh' >> etc/passwd",
  'ln etc/motd etc/motd-link',
  'chown 1000:1000 home',
].join(' && ');

/** A client's ssh command that trusts the host keys of the job's record, and no others. */
async function sshCommand(job: JobView, directory: string): Promise<string[]> {
  const [container] = job.ssh_containers!;
  const { host, port } = container!.connection_info.customer_access;
  const knownHosts = path.join(directory, 'known_hosts');
  await writeFile(
    knownHosts,
    container!.host_keys!.map(({ type, key }) => `[${host}]:${port} ${type} ${key}\n`).join(''),
  );
  const options = [`UserKnownHostsFile=${knownHosts}`, 'StrictHostKeyChecking=yes', 'BatchMode=yes', 'LogLevel=ERROR'];
  return [
    '-F',
    'none',
    '-i',
    path.join(directory, 'key'),
    ...options.flatMap((option) => ['-o', option]),
    '-p',
    String(port),
    `root@${host}`,
  ];
}

/** Waits until ssh has ended, however: the server closes the connection when the shell is complete. */
async function ssh(command: string[], script: string): Promise<string> {
  return (await run('ssh', [...command, script])).stdout;
}

async function checkImage(context: CustomizeContext, imageId: string): Promise<void> {
  const { cat, listing } = await downloadImage(context, imageId);
  expectAll(context, [
    ['etc/motd was written', (await cat('etc/motd')).trim() === MESSAGE],
    ['etc/hostname was deleted', !/squashfs-root\/etc\/hostname$/m.test(listing)],
    ['etc/passwd has the new user', (await cat('etc/passwd')).includes('admin:x:1000')],
    [
      'the CA certificate is in place',
      (await cat('etc/cray/ca/certificate_authority.crt')).includes('BEGIN CERTIFICATE'),
    ],
    ['etc/resolv.conf is as it was', /etc\/resolv\.conf -> \/run\/resolv\.conf$/m.test(listing)],
    ['home belongs to the new user', /1000\/1000 .*squashfs-root\/home$/m.test(listing)],
    ['nothing of the job is left inside', !/tmp\/complete|\.bash_history|ash_history/.test(listing)],
  ]);
}

/** The operators' procedure from the job to its end, once. */
export async function customizeOnce(context: CustomizeContext, jail: boolean): Promise<void> {
  const { api, directory, step } = context;
  const { id } = await api.request<JobView>('POST', '/jobs', {
    job_type: 'customize',
    artifact_id: context.imageId,
    public_key_id: context.publicKeyId,
    image_root_archive_name: jail ? 'demo-customized-jailed' : 'demo-customized',
    ssh_containers: [{ name: 'customize', jail }],
  });
  step(`job ${id} created${jail ? ', jailed' : ''}`);
  const waiting = await api.waitFor(id, 'waiting_on_user');
  const command = await sshCommand(waiting, directory);
  step(`waiting_on_user: ssh -p ${command.at(-2)} ${command.at(-1)}`);
  const root = jail ? '/' : '/mnt/image/image-root';
  await ssh(command, `cd ${root} && ${CHANGES}`);
  step('changed the image root by ssh');
  await ssh(command, jail ? 'touch /tmp/complete' : 'touch /mnt/image/complete');
  const done = await api.waitFor(id, 'success');
  step(`success: image ${done.resultant_image_id}`);
  await checkImage(context, done.resultant_image_id!);
  await deleteJob(context, id);
}
