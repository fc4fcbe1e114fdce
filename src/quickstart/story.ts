import { execFile } from 'node:child_process';
import { readdir, readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { promisify } from 'node:util';
import type { ArtifactStore } from '../artifacts/artifact-store.js';
import { findLocation } from '../protocol/artifact-link.js';
import type { ImageManifest } from '../protocol/image-manifest.js';
import { ARTIFACT_TYPE } from '../protocol/image-manifest.js';
import type { Api, JobView } from './api.js';

const run = promisify(execFile);

export interface StoryContext {
  api: Api;
  store: ArtifactStore;
  /** Directory for keys and downloads. */
  directory: string;
  /** Directory of the server's jobs. */
  jobsDirectory: string;
  imageId: string;
  publicKeyId: string;
  /** Prints a step with its time. */
  step: (text: string) => void;
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

async function checkImage({ api, store, directory, step }: StoryContext, imageId: string): Promise<void> {
  const { link } = await api.request<{ link: { path: string } }>('GET', `/images/${imageId}`);
  const manifest = JSON.parse((await store.readSmall(findLocation(link.path)!, 1 << 20)).toString()) as ImageManifest;
  const types = manifest.artifacts.map(({ type }) => type.split('.image.')[1]);
  step(`the manifest lists ${types.join(', ')}`);
  const rootfs = manifest.artifacts.find(({ type }) => type === ARTIFACT_TYPE.rootfs)!;
  const file = path.join(directory, 'result.squashfs');
  const pieces = await (await store.read(findLocation(rootfs.link.path)!)).toArray();
  await writeFile(file, Buffer.concat(pieces as Buffer[]));
  const cat = async (name: string) => (await run('unsquashfs', ['-cat', file, name])).stdout;
  const listing = (await run('unsquashfs', ['-lln', '-no-progress', file])).stdout;
  const checks: [string, boolean][] = [
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
  ];
  const wrong = checks.filter(([, isRight]) => !isRight).map(([what]) => what);
  if (wrong.length) throw new Error(`the new image is wrong. It is not so that: ${wrong.join('; ')}`);
  step(`the new SquashFS was checked: ${checks.map(([what]) => what).join(', ')}`);
}

/** Waits until nothing is left of a deleted job. */
async function checkNothingIsLeft({ jobsDirectory }: StoryContext, jobId: string): Promise<void> {
  for (let tries = 0; tries < 100; tries++) {
    const directories = await readdir(jobsDirectory);
    const mounts = await readFile('/proc/self/mountinfo', 'utf8');
    if (!directories.includes(jobId) && !mounts.includes(jobId)) return;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  throw new Error('the deleted job has left something behind');
}

/** The operators' procedure from the job to its end, once. */
export async function customizeOnce(context: StoryContext, jail: boolean): Promise<void> {
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
  await api.request('DELETE', `/jobs/${id}`);
  await checkNothingIsLeft(context, id);
  step('job deleted, nothing left');
}
