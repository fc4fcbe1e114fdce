import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { buildDemoRepository } from '../../src/quickstart/demo-repository.js';
import { BuildSite } from '../support/build-site.js';
import { RepositoryServer } from '../support/repository.js';
import { recipeOfSignedPackages, SigningKey } from '../support/signing-key.js';

/*
 * Recipes may have their packages checked by the keys of the site. Packages are signed by rpmsign, and checked by zypper as KIWI-NG has it do.
 */

let directory: string;
let site: BuildSite;
let ours: SigningKey;
let foreign: SigningKey;
const repositories: RepositoryServer[] = [];

/** Serves packages that this key has signed, or nobody. */
async function serve(key: SigningKey | null): Promise<RepositoryServer> {
  const packages = await mkdtemp(path.join(directory, 'packages-'));
  await buildDemoRepository(packages);
  await key?.signRepository(packages);
  const repository = await new RepositoryServer(packages).start();
  repositories.push(repository);
  return repository;
}

beforeAll(async () => {
  directory = await mkdtemp(path.join(tmpdir(), 'ims-signed-'));
  [ours, foreign] = [await SigningKey.make(), await SigningKey.make()];
  const keys = await mkdtemp(path.join(directory, 'keys-'));
  await ours.export(path.join(keys, 'site key.asc'));
  site = await BuildSite.start({ JOB_SIGNING_KEYS_DIR: keys });
}, 240_000);
afterAll(async () => {
  await site?.stop();
  for (const repository of repositories) await repository.stop();
  for (const key of [ours, foreign]) await key?.remove();
  await rm(directory, { recursive: true, force: true });
});

const recipeFor = ({ url }: RepositoryServer) => ({
  files: { 'config.xml': recipeOfSignedPackages() },
  values: site.valuesOf(url),
});

it('packages that the site has signed are installed, and the image knows no other key', async () => {
  const { system } = site;
  const { id } = await site.startJob(await site.addRecipe(recipeFor(await serve(ours))));
  const { resultant_image_id } = await system.waitFor(id, 'success', 120);
  const packages = 'rpm --root "$A" --dbpath /var/lib/rpm -q --qf "%{SUMMARY}\\n" gpg-pubkey cray_ca_cert';
  const rootfs = await system.rootfsOf(resultant_image_id!);
  const { stdout } = await system.withMounted([rootfs], `cat "$A/etc/motd"; ${packages}`);
  expect(stdout).toMatch(/^from a package\n\S*site\S* public key\nCertificate of the site CA\n$/);
}, 180_000);

it.each([
  ['somebody else has signed', () => foreign],
  ['nobody has signed', () => null],
])(
  'packages that %s are refused',
  async (_who, key) => {
    const reason = await site.reasonOf(recipeFor(await serve(key())), {}, 120);
    expect(reason).toMatch(/^the image could not be built: Kiwi\w+: .*filesystem.*Signature verification failed/);
  },
  180_000,
);
