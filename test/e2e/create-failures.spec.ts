import { execFileSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import path from 'node:path';
import { gzipSync } from 'node:zlib';
import { findLocation } from '../../src/protocol/artifact-link.js';
import { DEMO_RECIPE } from '../../src/quickstart/demo-recipe.js';
import { BuildSite, type RecipeUnderTest } from '../support/build-site.js';
import { RepositoryServer } from '../support/repository.js';
import { until } from '../support/system.js';
import { packTar, type TarEntry, writeTar } from '../support/tar-archive.js';

const CONFIG = DEMO_RECIPE['config.xml']!;

/** Stores what stands on standard input, with an md5 in its metadata that a client made up. */
const PUT_WITH_MD5 = `
import boto3, sys
client = boto3.client('s3', endpoint_url=sys.argv[1], aws_access_key_id='test-access', aws_secret_access_key='test-secret', region_name='us-east-1')
client.put_object(Bucket='ims', Key=sys.argv[2], Body=sys.stdin.buffer.read(), Metadata={'md5sum': sys.argv[3]})
`;

let site: BuildSite;
/** A repository whose index is damaged. */
let broken: RepositoryServer;

beforeAll(async () => {
  site = await BuildSite.start({
    JOB_REPOSITORY_SECONDS: '2',
    JOB_RECIPE_MAX_MIB: '8',
    JOB_RECIPE_MAX_ENTRIES: '1000',
  });
  const directory = await site.system.makeDirectory('broken', 'repodata');
  await writeFile(path.join(directory, 'repomd.xml'), '<repomd>');
  broken = await new RepositoryServer(path.dirname(directory)).start();
}, 240_000);
afterAll(async () => {
  await broken.stop();
  await site.stop();
});

describe('KIWI-NG refuses, and the job says why in its words:', () => {
  it.each<[what: string, recipe: () => RecipeUnderTest, reason: RegExp]>([
    [
      'a script of the recipe fails',
      () => ({ files: { 'config.sh': '#!/bin/sh\necho broken >&2\nexit 1\n' } }),
      /^the image could not be built: KiwiScriptFailed: config\.sh failed/,
    ],
    [
      'a script tells what no record can hold',
      () => ({ files: { 'config.sh': "#!/bin/sh\nprintf 'a\\0\\033[31mb \\360\\237\\230' >&2\nexit 1\n" } }),
      /^the image could not be built: KiwiScriptFailed: config\.sh failed with: ab \uFFFD/,
    ],
    [
      'the last script of the recipe fails',
      () => ({ files: { 'images.sh': '#!/bin/sh\nexit 1\n' } }),
      /^the image could not be built: KiwiScriptFailed: images\.sh failed/,
    ],
    [
      'a package is in no repository',
      () => ({ values: site.valuesOf(site.repository.url, 'no-such-package') }),
      /^the image could not be built: KiwiBootStrapPhaseFailed: .*'no-such-package'/,
    ],
    [
      'a directory of packages is missing',
      () => ({ values: site.valuesOf('dir:///no/such/repository') }),
      /^the image could not be built: KiwiBootStrapPhaseFailed: .*No provider of 'filesystem' found\./,
    ],
    [
      'a repository is there, but broken',
      () => ({ values: site.valuesOf(broken.url) }),
      /^the image could not be built: Kiwi\w+: .*Repository 'demo' is invalid\./,
    ],
    [
      'the description is not as the schema wants it',
      () => ({ files: { 'config.xml': CONFIG.replace('<version>', '<vers>1</vers><version>') } }),
      /^the image could not be built: KiwiDescriptionInvalid: .*\(near line \d+: .*vers/,
    ],
    [
      'the description is no XML',
      () => ({ files: { 'config.xml': '<image' } }),
      /^the image could not be built: Kiwi\w+: /,
    ],
    [
      'there is no description',
      () => ({ files: { 'config.xml': null, '.ims_recipe_template.yaml': null } }),
      /^the image could not be built: KiwiConfigFileNotFound: /,
    ],
  ])(
    '%s',
    async (_what, recipe, reason) => {
      const told = await site.reasonOf(recipe());
      expect(told).toMatch(reason);
      expect(told).not.toMatch(/\/var\/tmp\/image|ims-system-|[\n\r]/);
    },
    90_000,
  );
});

const hasLimits = existsSync('/sys/fs/cgroup/memory');
if (!hasLimits)
  console.warn('a build that takes all memory is not tested: this host offers no control groups of version 1');

(hasLimits ? it : it.skip)(
  'a build that takes more memory than the job may names what to change',
  async () => {
    // Four programs of 1.9 GB each at once, where five times job_mem_size are allowed.
    const hold = '{ dd if=/dev/zero of=/dev/null bs=1900M count=10 2>/dev/null || touch /killed; } &';
    const greedy = `#!/bin/sh\nfor i in 1 2 3 4; do\n${hold}\ndone\nwait\n[ ! -e /killed ]\n`;
    expect(await site.reasonOf({ files: { 'config.sh': greedy } }, { job_mem_size: 1 }, 120)).toMatch(
      /^the image could not be built: programs of it were killed, since the job took more memory than it may: start it again with a larger job_mem_size \(KiwiScriptFailed: config\.sh failed/,
    );
  },
  180_000,
);

it('neither the log nor the reason of a build tells how it may read its repositories', async () => {
  const secret = `${site.repository.url.replace('//', '//me:hidden@')}/?token=hidden`;
  const { id } = await site.startJob(await site.addRecipe({ values: site.valuesOf(secret, 'no-such-package') }));
  const { status_reason } = await site.system.waitFor(id, 'error');
  expect(status_reason).toMatch(/'no-such-package'/);
  const log = await site.system.jobLog(id);
  expect(log).toContain(`${site.repository.url}/?…`);
  expect(`${log}${status_reason}`).not.toContain('hidden');
}, 90_000);

describe('the recipe is refused:', () => {
  it.each<[what: string, recipe: RecipeUnderTest, reason: RegExp]>([
    [
      'a template has a variable without a value',
      { values: [{ key: 'PACKAGES', value: '' }] },
      /\(config\.xml, line 15\): 'REPOSITORY' is undefined/,
    ],
    [
      'a template is outside of it',
      { files: { '.ims_recipe_template.yaml': 'template_files: [../../job.json]\n' } },
      /"\.\.\/\.\.\/job\.json" that the recipe lists is outside of the recipe/,
    ],
    [
      'a template wants out of its sandbox',
      { files: { 'config.xml': "{{ ''.__class__.__mro__ }}" } },
      /\(config\.xml, line 1\): access to attribute '__class__' of 'str' object is unsafe/,
    ],
    [
      'a template takes all memory',
      { files: { 'config.xml': "{{ 'x' * 10 ** 11 }}" } },
      /\(config\.xml\): it takes too much memory/,
    ],
    ['it has templates, but the record no values', { values: [] }, /no template_dictionary to fill them with/],
  ])('%s', async (_what, recipe, reason) => {
    expect(await site.reasonOf(recipe)).toMatch(reason);
  });

  it.each<[what: string, entries: TarEntry[], reason: RegExp]>([
    ['leads out of it', [{ name: '../x', content: 'x' }], /^the archive of the recipe holds the path "\.\.\/x"/],
    ['has an absolute path', [{ name: '/etc/x', content: 'x' }], /holds the absolute path "\/etc\/x"/],
    [
      'has a link, and a file through it',
      [
        { name: 'out', type: 'symlink', linkname: '..' },
        { name: 'out/job.json', content: '{}' },
      ],
      /holds files below "out", which is a link/,
    ],
    [
      'has a link that leads out of it',
      [{ name: 'a', type: 'symlink', linkname: '/etc/shadow' }],
      /holds the link "a", which leads out of the recipe/,
    ],
    ['has a device', [{ name: 'a', type: 'block-device', devmajor: 7 }], /holds "a", which is a block device/],
    [
      'is too large',
      [{ name: 'x', content: 'x'.repeat(9 << 20) }],
      /holds more than 8 MiB: .*raise JOB_RECIPE_MAX_MIB/,
    ],
  ])('its archive %s', async (_what, entries, reason) => {
    const archive = await writeTar(site.system.file('hostile.tar'), entries);
    expect(await site.reasonOf({ archive })).toMatch(reason);
  });

  it('its archive unpacks to ten gigabytes of zeros', async () => {
    const head = (await packTar([{ name: 'zeros', content: '' }])).subarray(0, 512);
    const zeros = gzipSync(Buffer.alloc(64 << 20));
    const archive = site.system.file('zeros.tgz');
    await writeFile(archive, Buffer.concat([gzipSync(head), ...Array.from({ length: 160 }, () => zeros)]));
    expect(await site.reasonOf({ archive })).toMatch(/holds more than 8 MiB: .*raise JOB_RECIPE_MAX_MIB/);
  });

  it('its archive holds a hundred thousand files', async () => {
    const entries = Array.from({ length: 100_000 }, (_, index) => ({ name: `d/${index}` }));
    const archive = await writeTar(site.system.file('many.tar'), entries);
    expect(await site.reasonOf({ archive })).toMatch(/holds more than 1000 files: .*raise JOB_RECIPE_MAX_ENTRIES/);
  }, 60_000);

  it('its archive is not the one that was uploaded', async () => {
    const { api, store, storeUrl } = site.system;
    const recipeId = await site.addRecipe();
    const { link } = await api.request<{ link: { path: string } }>('GET', `/recipes/${recipeId}`);
    const { key } = findLocation(link.path)!;
    const body = await store.readSmall({ bucket: 'ims', key }, 1 << 20);
    const wrong = 'd41d8cd98f00b204e9800998ecf8427e';
    execFileSync('python3', ['-c', PUT_WITH_MD5, storeUrl, key, wrong], { input: body });
    const { id } = await site.startJob(recipeId);
    await expect(site.system.waitFor(id, 'success')).rejects.toThrow(
      new RegExp(`the archive of the recipe has the md5 [0-9a-f]{32}, but the artifact store says ${wrong}`),
    );
    await api.request('DELETE', `/jobs/${id}`);
    await site.system.expectNoTraces(id);
  });

  it('it is of the type packer', async () => {
    expect(await site.reasonOf({ type: 'packer' })).toBe(
      'recipes of the type packer are not supported: images are built from recipes of the type kiwi-ng only',
    );
  });
});

describe('a repository', () => {
  it('that does not come up ends the job, which names it and what it answered', async () => {
    const repository = await new RepositoryServer(site.system.file('repository')).start();
    repository.status = 503;
    try {
      const secret = repository.url.replace('//', '//me:secret@');
      expect(await site.reasonOf({ values: site.valuesOf(secret) })).toBe(
        `repositories of the recipe did not come up within 2 s (JOB_REPOSITORY_SECONDS): demo (${repository.url}/repodata/repomd.xml) answered 503. Correct their addresses in the recipe, or start them, and start the job again`,
      );
    } finally {
      await repository.stop();
    }
  });

  it('whose name does not resolve ends the job', async () => {
    expect(await site.reasonOf({ values: site.valuesOf('http://repository.invalid/x') })).toMatch(
      /demo \(http:\/\/repository\.invalid\/x\/repodata\/repomd\.xml\) could not be asked \(E\w+\)/,
    );
  });
});

it('a missing kernel ends the job, which says what /boot holds', async () => {
  const without = { ...DEMO_RECIPE, 'images.sh': '#!/bin/sh\nrm /boot/vmlinuz*\n' };
  expect(await site.reasonOf({ files: without })).toMatch(/no kernel \/boot\/vmlinuz; \/boot holds initrd, initrd-1/);
}, 90_000);

describe('on a machine with a small disk and no mmdebstrap', () => {
  let small: BuildSite;

  beforeAll(async () => {
    const mounts = [
      'mkdir -p "$STATE_DIR"; mount -t tmpfs -o size=200m none "$STATE_DIR"',
      'mount --bind /etc/passwd /usr/bin/mmdebstrap',
      'exec "$@"',
    ];
    const inMounts = ['unshare', '--mount', '--propagation', 'private', 'sh', '-c', mounts.join('; '), 'sh'];
    small = await BuildSite.start({ JOB_DISK_RESERVE_MIB: '24' }, inMounts);
  }, 120_000);
  afterAll(() => small.stop());

  /** The reason of a job that fails. */
  const reasonOf = async (files: Record<string, string>) => {
    const { id } = await small.startJob(await small.addRecipe({ files }));
    return (await small.system.waitFor(id, 'error')).status_reason;
  };

  it('a recipe of Debian ends the job, which says what to install', async () => {
    expect(await reasonOf({ 'config.xml': CONFIG.replace('>zypper<', '>apt<') })).toMatch(
      /^the recipe installs by apt, which is missing on the machine .*: apt-get install -y --no-install-recommends mmdebstrap$/,
    );
  }, 90_000);

  it('a recipe that fills the disk ends the job, and nothing else', async () => {
    const greedy = { 'config.sh': '#!/bin/sh\ndd if=/dev/zero of=/large bs=1M count=400\n' };
    expect(await reasonOf(greedy)).toBe(
      'the disk on which the job works is full: free some space (old jobs, other files), or give the server a larger STATE_DIR, and start the job again',
    );
    let recipeId: string | null = null;
    await until('there is space', async () => (recipeId = await small.addRecipe().catch(() => null)) !== null);
    const next = await small.startJob(recipeId!);
    await small.system.waitFor(next.id, 'success', 120);
  }, 240_000);
});
