import { readFile } from 'node:fs/promises';
import type { SshContainer } from '../../src/jobs/job.entity.js';
import { command, System, until } from '../support/system.js';
import { ClientSession } from './client-session.js';

/*
 * cfs-operator customizes an image: plain `requests` inside of the mesh, no version, no token; a GET of all images before every step; then
 * ssh as root with an ECDSA key. Real jobs in real sandboxes.
 */

const SESSION = 'batcher-51f9d4b2';

let system: System;
let cfs: ClientSession;
let imageId: string;

beforeAll(async () => {
  system = await System.start();
  await command('ssh-keygen', ['-q', '-t', 'ecdsa', '-N', '', '-f', system.file('cfs')]);
  imageId = await system.addImage({ name: 'compute' });
  cfs = new ClientSession(system.url, '');
}, 120_000);
afterAll(async () => {
  cfs?.close();
  await system?.stop();
});

/** Every step begins with a look whether the service is there. */
async function step(method: string, path: string, status: number, body?: unknown) {
  expect((await cfs.list('/images')).length).toBeGreaterThan(0);
  return cfs.expect(status, method, path, body);
}

const jobOf = (id: string) => step('GET', `/jobs/${id}`, 200);

/** The shell of the session, as the job tells it: found by its name. */
async function openShell(id: string): Promise<{ host: string; port: number }> {
  let job = await jobOf(id);
  await until(
    'the job waits on its user',
    async () => {
      job = await jobOf(id);
      expect(['error', 'success']).not.toContain(job['status']);
      return job['status'] === 'waiting_on_user';
    },
    120,
  );
  expect(job['image_root_archive_name']).toBe(`compute_cfs_${SESSION}`);
  const shell = (job['ssh_containers'] as SshContainer[]).find(({ name }) => name === SESSION)!;
  const { host, port } = shell.connection_info['cluster.local'];
  expect([shell.jail, typeof host, Number.isInteger(port)]).toEqual([true, 'string', true]);
  return { host, port };
}

async function ssh({ host, port }: { host: string; port: number }, script: string) {
  const options = ['StrictHostKeyChecking=no', 'UserKnownHostsFile=/dev/null', 'BatchMode=yes', 'LogLevel=ERROR'];
  const settings = options.flatMap((option) => ['-o', option]);
  const identity = ['-F', 'none', '-i', system.file('cfs')];
  return command('ssh', [...identity, ...settings, '-p', String(port), `root@${host}`, script]);
}

/** What its inventory container does: key, job, shell; the key is deleted as soon as the shell is open. */
async function inventory(): Promise<{ id: string; shell: { host: string; port: number } }> {
  const public_key = await readFile(system.file('cfs.pub'), 'utf8');
  const key = await step('POST', '/public-keys', 201, { name: `cfs_${SESSION}`, public_key });
  const { name } = await step('GET', `/images/${imageId}`, 200);
  const job = await step('POST', '/jobs', 201, {
    job_type: 'customize',
    image_root_archive_name: `${name}_cfs_${SESSION}`,
    artifact_id: imageId,
    public_key_id: key['id'],
    ssh_containers: [{ name: SESSION, jail: true }],
  });
  const id = String(job['id']);
  const shell = await openShell(id);
  // A refused connection is the end of the session: the first try has to get through.
  expect(await ssh(shell, 'echo ~root && sleep 0')).toMatchObject({ code: 0, stdout: '/root\n' });
  await step('DELETE', `/public-keys/${key['id']}`, 204);
  return { id, shell };
}

it('a session that succeeds: the key is deleted before the shell is used again, and the result is there with its success', async () => {
  const { id, shell } = await inventory();
  const again = await openShell(id);
  expect(again).toEqual(shell);
  expect(await ssh(again, 'echo configured > /etc/motd && touch /tmp/complete')).toMatchObject({ code: 0 });
  let result: unknown = null;
  await until(
    'the job has a result',
    async () => {
      const { status, resultant_image_id } = await jobOf(id);
      expect(status).not.toBe('error');
      // It asks for ever about a success without a result.
      if (status === 'success') expect(resultant_image_id).not.toBeNull();
      result = resultant_image_id;
      return result !== null;
    },
    120,
  );
  await until('it succeeds', async () => (await jobOf(id))['status'] === 'success', 60);
  expect(await cfs.expect(200, 'GET', `/images/${result}`)).toMatchObject({
    name: `compute_cfs_${SESSION}`,
    arch: 'x86_64',
    link: { path: `s3://boot-images/${result}/manifest.json`, type: 's3' },
  });
}, 240_000);

it('a session that fails: it touches the file and goes; the job ends in error without an image', async () => {
  const { id, shell } = await inventory();
  expect(await ssh(shell, 'touch /tmp/failed')).toMatchObject({ code: 0 });
  await until('the job ends', async () => (await jobOf(id))['status'] === 'error', 60);
  expect((await jobOf(id))['resultant_image_id']).toBeNull();
}, 240_000);

it('ims_monitor ends the jobs of sessions that are over: they and all of theirs are gone', async () => {
  const { id } = await inventory();
  const running = (await cfs.list('/jobs')).filter(({ status }) => !['success', 'error'].includes(String(status)));
  expect(running.map((job) => job['id'])).toEqual([id]);
  await cfs.expect(204, 'DELETE', `/jobs/${id}`);
  await cfs.expect(404, 'DELETE', `/jobs/${id}`);
  await system.expectNoTraces(id, 60);
}, 240_000);
