import { writeFile } from 'node:fs/promises';
import { buildDemoRepository } from '../../src/quickstart/demo-repository.js';
import { aarch64Program } from '../support/aarch64-program.js';
import { BuildSite } from '../support/build-site.js';
import { Cluster } from '../support/cluster.js';
import { addForeignImage, findObstacle, isEmulating, MADE_BY, unregister } from '../support/emulation.js';
import { RepositoryServer } from '../support/repository.js';
import type { System } from '../support/system.js';

/* The node of the test cluster has the kernel of this machine, and pods register the emulator there. */

const obstacle = findObstacle();
if (obstacle) console.warn(`emulation is not tested: ${obstacle}`);

(obstacle ? describe.skip : describe)('with JOB_EMULATION', () => {
  let cluster: Cluster;
  let system: System;
  let site: BuildSite;

  beforeAll(async () => {
    cluster = await Cluster.open();
    system = await cluster.startSystem({ JOB_EMULATION: 'true' });
    site = await BuildSite.on(system, cluster.address);
  }, 120_000);
  afterAll(async () => {
    await site?.repository.stop();
    await cluster?.close();
    unregister();
  }, 60_000);

  it('programs of an aarch64 image run in its pod', async () => {
    expect(isEmulating()).toBe(false);
    const { id } = await site.customize(await addForeignImage(system, 'opt/program'));
    await system.waitFor(id, 'waiting_on_user', 120);
    expect(isEmulating()).toBe(true);
    const root = '/mnt/image/image-root';
    await cluster.exec(id, 'sshd', 'chroot', root, '/opt/program');
    expect(await cluster.exec(id, 'sshd', 'cat', `${root}${MADE_BY}`)).toBe('aarch64');
    await cluster.deleteJob(system, id);
  }, 180_000);

  it('an aarch64 image is built, and its scripts run on that machine', async () => {
    const program = system.file('program');
    await writeFile(program, aarch64Program(MADE_BY), { mode: 0o755 });
    const directory = await system.makeDirectory('aarch64');
    await buildDemoRepository(directory, program);
    const repository = await new RepositoryServer(directory, null, cluster.address).start();
    try {
      const recipeId = await site.addRecipe({ arch: 'aarch64', values: site.valuesOf(repository.url) });
      const { id } = await site.startJob(recipeId, { kernel_file_name: 'vmlinuz-1' });
      const { resultant_image_id } = await system.waitFor(id, 'success', 240);
      const rootfs = await system.rootfsOf(resultant_image_id!);
      expect((await system.withMounted([rootfs], `cat "$A${MADE_BY}"`)).stdout).toBe('aarch64');
      await cluster.deleteJob(system, id);
    } finally {
      await repository.stop();
    }
  }, 300_000);
});
