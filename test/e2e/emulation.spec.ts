import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { mkdir, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { buildDemoRepository } from '../../src/quickstart/demo-repository.js';
import { aarch64Program } from '../support/aarch64-program.js';
import { BuildSite } from '../support/build-site.js';
import { RepositoryServer } from '../support/repository.js';

const BINFMT = '/proc/sys/fs/binfmt_misc';
const EMULATOR = path.join(BINFMT, 'qemu-aarch64');
/** Where programs of the tests tell on which machine they ran. */
const MADE_BY = '/made-by';

/** Whether binfmt_misc was mounted before these tests. */
const wasMounted = existsSync(path.join(BINFMT, 'register'));

/** Why these tests cannot run here; null where they can. */
function findObstacle(): string | null {
  if (process.arch !== 'x64') return 'this machine is not of x86_64';
  if (existsSync(EMULATOR)) return 'qemu-aarch64 is registered already, and is not ours to remove';
  if (!existsSync('/usr/lib/binfmt.d/qemu-aarch64.conf')) return 'qemu-user-static is not installed';
  if (wasMounted) return null;
  try {
    execFileSync('mount', ['-t', 'binfmt_misc', 'none', BINFMT], { stdio: 'pipe' });
    execFileSync('umount', [BINFMT]);
    return null;
  } catch {
    return 'binfmt_misc cannot be mounted here';
  }
}

const obstacle = findObstacle();
if (obstacle) console.warn(`emulation is not tested: ${obstacle}`);

/** The emulator is registered for the whole machine: what a test has registered goes with it. */
function unregister(): void {
  if (existsSync(EMULATOR)) writeFileSync(EMULATOR, '-1');
  if (!wasMounted && existsSync(path.join(BINFMT, 'register'))) execFileSync('umount', [BINFMT]);
}

/** Puts a program of aarch64 into the root of an image. */
async function addProgram(root: string): Promise<void> {
  await mkdir(path.join(root, 'opt'), { recursive: true });
  await writeFile(path.join(root, 'opt/program'), aarch64Program(MADE_BY), { mode: 0o755 });
}

async function addImage({ system }: BuildSite): Promise<string> {
  const imageId = await system.addImage({ prepare: addProgram });
  await system.api.request('PATCH', `/images/${imageId}`, { arch: 'aarch64' });
  return imageId;
}

describe('without JOB_EMULATION', () => {
  let site: BuildSite;

  beforeAll(async () => {
    site = await BuildSite.start();
  }, 120_000);
  afterAll(() => site.stop());

  const REFUSED = /^this machine cannot run \w+ jobs: programs of aarch64 do not run here: .* set JOB_EMULATION=true/;

  (process.arch === 'x64' && !existsSync(EMULATOR) ? it : it.skip)(
    'jobs that run programs of another architecture end with what to do, and nothing is registered',
    async () => {
      const recipeId = await site.addRecipe({ arch: 'aarch64' });
      const build = await site.startJob(recipeId);
      expect((await site.system.waitFor(build.id, 'error')).status_reason).toMatch(REFUSED);
      const jailed = await site.customize(await addImage(site), { ssh_containers: [{ name: 'a', jail: true }] });
      expect((await site.system.waitFor(jailed.id, 'error')).status_reason).toMatch(REFUSED);
      expect(existsSync(EMULATOR)).toBe(false);
    },
    60_000,
  );
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
    const { id, arch } = await site.customize(await addImage(site));
    expect(arch).toBe('aarch64');
    const job = await system.waitFor(id, 'waiting_on_user');
    expect(readFileSync(EMULATOR, 'utf8')).toMatch(/^enabled/);
    const root = '/mnt/image/image-root';
    expect(await system.ssh(job, `chroot ${root} /opt/program && cat ${root}${MADE_BY}; echo $IMS_ARCH`)).toMatchObject(
      { code: 0, stdout: 'aarch64aarch64\n' },
    );
    await system.ssh(job, 'touch /mnt/image/failed');
    await system.waitFor(id, 'error');
  }, 90_000);

  it('an aarch64 image is built, and its scripts run on that machine', async () => {
    const { system } = site;
    const program = system.file('program');
    await writeFile(program, aarch64Program(MADE_BY), { mode: 0o755 });
    const directory = await system.makeDirectory('aarch64');
    await buildDemoRepository(directory, program);
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
