import { writeFile } from 'node:fs/promises';
import { buildDemoRepository } from '../../src/quickstart/demo-repository.js';
import { aarch64Program } from '../support/aarch64-program.js';
import { BuildSite } from '../support/build-site.js';
import { addForeignImage, findObstacle, isEmulating, MADE_BY, unregister } from '../support/emulation.js';
import { RepositoryServer } from '../support/repository.js';

const obstacle = findObstacle();
if (obstacle) console.warn(`emulation is not tested: ${obstacle}`);

/** Where the tests have a program of aarch64 in an image. */
const PROGRAM = 'opt/program';

(obstacle ? describe.skip : describe)('without JOB_EMULATION', () => {
  let site: BuildSite;

  beforeAll(async () => {
    site = await BuildSite.start();
  }, 120_000);
  afterAll(() => site.stop());

  const REFUSED = /^programs of aarch64 do not run on the machine that the job is on: .* set JOB_EMULATION=true/;

  it('jobs that run programs of another architecture end with what to do, and nothing is registered', async () => {
    const recipeId = await site.addRecipe({ arch: 'aarch64' });
    const build = await site.startJob(recipeId);
    expect((await site.system.waitFor(build.id, 'error')).status_reason).toMatch(REFUSED);
    const imageId = await addForeignImage(site.system, PROGRAM);
    const jailed = await site.customize(imageId, { ssh_containers: [{ name: 'a', jail: true }] });
    expect((await site.system.waitFor(jailed.id, 'error')).status_reason).toMatch(REFUSED);
    expect(isEmulating()).toBe(false);
  }, 60_000);
});

(obstacle ? describe.skip : describe)('with JOB_EMULATION', () => {
  let site: BuildSite;

  beforeAll(async () => {
    site = await BuildSite.start({ JOB_EMULATION: 'true' });
  }, 120_000);
  afterAll(async () => {
    await site.stop();
    unregister();
  });

  it('programs of an aarch64 image run in the shell', async () => {
    const { system } = site;
    const { id, arch } = await site.customize(await addForeignImage(system, PROGRAM));
    expect(arch).toBe('aarch64');
    const job = await system.waitFor(id, 'waiting_on_user');
    expect(isEmulating()).toBe(true);
    const root = '/mnt/image/image-root';
    expect(await system.ssh(job, `chroot ${root} /${PROGRAM} && cat ${root}${MADE_BY}; echo $IMS_ARCH`)).toMatchObject({
      code: 0,
      stdout: 'aarch64aarch64\n',
    });
    await system.ssh(job, 'touch /mnt/image/failed');
    await system.waitFor(id, 'error');
  }, 90_000);

  it('the shell of a jail is that of an aarch64 image', async () => {
    const { system } = site;
    // Whatever this shell is asked for, it writes where it runs to the file that ends the job.
    const imageId = await addForeignImage(system, 'bin/bash', '/tmp/complete');
    const shell = { ssh_containers: [{ name: 'a', jail: true }] };
    const { id } = await site.customize(imageId, { ...shell, kernel_file_name: 'vmlinuz-1' });
    const job = await system.waitFor(id, 'waiting_on_user');
    expect(await system.ssh(job, 'uname -m')).toEqual({ code: 0, stdout: '', stderr: '' });
    await system.waitFor(id, 'success');
  }, 90_000);

  it('an aarch64 image is built, and its scripts run on that machine', async () => {
    const { system } = site;
    const program = system.file('program');
    await writeFile(program, aarch64Program(MADE_BY), { mode: 0o755 });
    const directory = await system.makeDirectory('aarch64');
    // Only a build for that architecture finds a kernel there.
    await buildDemoRepository(directory, program, 'aarch64');
    const repository = await new RepositoryServer(directory).start();
    try {
      const recipeId = await site.addRecipe({ arch: 'aarch64', values: site.valuesOf(repository.url) });
      const { id } = await site.startJob(recipeId, { kernel_file_name: 'vmlinuz-1' });
      const { resultant_image_id } = await system.waitFor(id, 'success', 180);
      expect(await system.jobLog(id)).toContain('Calling config.sh script');
      const image = await system.api.request<object>('GET', `/images/${resultant_image_id}`);
      expect(image).toMatchObject({ arch: 'aarch64' });
      const rootfs = await system.rootfsOf(resultant_image_id!);
      expect((await system.withMounted([rootfs], `cat "$A${MADE_BY}"`)).stdout).toBe('aarch64');
    } finally {
      await repository.stop();
    }
  }, 240_000);
});
