import { BuildSite } from '../support/build-site.js';
import type { System } from '../support/system.js';

const BROKEN = { 'config.sh': '#!/bin/sh\necho half > /etc/half-built\necho broken >&2\nexit 1\n' };
const REASON = /^the image could not be built: KiwiScriptFailed: config\.sh failed/;

let site: BuildSite;
let system: System;
let recipeId: string;

beforeAll(async () => {
  site = await BuildSite.start();
  ({ system } = site);
  recipeId = await site.addRecipe({ files: BROKEN });
}, 240_000);
afterAll(() => site.stop());

async function expectEnd(id: string, reason: RegExp): Promise<void> {
  const job = await system.waitFor(id, 'error');
  expect(job).toMatchObject({ status_reason: expect.stringMatching(reason), resultant_image_id: null });
  await system.api.request('DELETE', `/jobs/${id}`);
  await system.expectNoTraces(id);
}

it.each(['complete', 'failed'])(
  'a failed build waits with a shell in what it left, until %s',
  async (signal) => {
    const { id, ssh_containers } = await site.startJob(recipeId, { enable_debug: true });
    expect(ssh_containers).toMatchObject([{ name: 'debug', jail: false }]);
    const job = await system.waitFor(id, 'waiting_on_user', 120);
    expect(job.status_reason).toMatch(REASON);
    expect(await system.ssh(job, 'cat /mnt/image/image-root/etc/half-built')).toMatchObject({
      code: 0,
      stdout: 'half\n',
    });
    await system.ssh(job, `touch /mnt/image/${signal}`);
    await expectEnd(id, REASON);
  },
  180_000,
);

it('the user of the shell can be kept inside of what the build left', async () => {
  const shell = { enable_debug: true, ssh_containers: [{ name: 'look', jail: true }] };
  const { id, ssh_containers } = await site.startJob(recipeId, shell);
  expect(ssh_containers).toMatchObject([{ name: 'look', jail: true }]);
  const job = await system.waitFor(id, 'waiting_on_user', 120);
  const look = 'cat /etc/half-built; ls /mnt/image 2>/dev/null; touch /tmp/complete';
  expect(await system.ssh(job, look)).toEqual({ code: 0, stdout: 'half\n', stderr: '' });
  await expectEnd(id, REASON);
}, 180_000);

it('a shell that nobody ends is ended at its deadline, and the job tells why the build failed', async () => {
  const { id } = await site.startJob(recipeId, { enable_debug: true });
  const job = await system.waitFor(id, 'waiting_on_user', 120);
  const shell_deadline = new Date(Date.now() + 2000).toISOString();
  await system.api.request('PATCH', `/jobs/${job.id}`, { shell_deadline });
  await expectEnd(id, REASON);
}, 180_000);

it('a build that works needs no shell', async () => {
  const { id } = await site.startJob(await site.addRecipe(), { enable_debug: true });
  const { ssh_containers } = await system.waitFor(id, 'success', 120);
  expect(ssh_containers).toMatchObject([{ name: 'debug', jail: false }]);
  expect(await system.jobLog(id)).toContain('the build worked: no shell is needed');
}, 180_000);

it('a build that left nothing to look at ends at once', async () => {
  const nothing = { 'config.xml': '<image' };
  const { id } = await site.startJob(await site.addRecipe({ files: nothing }), { enable_debug: true });
  await expectEnd(id, /^the image could not be built: Kiwi/);
}, 120_000);

it('a failed build without enable_debug ends at once', async () => {
  const { id } = await site.startJob(recipeId);
  await expectEnd(id, REASON);
}, 120_000);
