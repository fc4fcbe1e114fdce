import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { readFile, writeFile } from 'node:fs/promises';
import { ARTIFACT_TYPE } from '../../src/protocol/image-manifest.js';
import type { JobView } from '../../src/quickstart/api.js';
import { DEMO_RECIPE, packRecipe } from '../../src/quickstart/demo-recipe.js';
import { BuildSite } from '../support/build-site.js';
import { type Certificate, RepositoryServer } from '../support/repository.js';
import { freePorts } from '../support/ports.js';
import { sleep, type System, until } from '../support/system.js';

/** Packages that the demo recipe asks for, and those that come with every build. */
const PACKAGES = ['busybox', 'cray_ca_cert', 'filesystem', 'kernel-tiny', 'motd-tiny', 'zypper'];

let site: BuildSite;
let system: System;

beforeAll(async () => {
  site = await BuildSite.start();
  ({ system } = site);
}, 120_000);
afterAll(() => site.stop());

/** Statuses that a job went through, and the stages that it told of each. */
async function historyOf(id: string): Promise<{ statuses: string[]; stages: string[] }> {
  interface Event {
    status: string;
    progress: { stage: string } | null;
  }
  const events = await system.api.request<Event[]>('GET', `/jobs/${id}/events`);
  const stages = events.filter(({ progress }) => progress).map((event) => `${event.status}: ${event.progress!.stage}`);
  return { statuses: [...new Set(events.map(({ status }) => status))], stages: [...new Set(stages)] };
}

describe('a create job', () => {
  let recipeId: string;
  let job: JobView;
  let imageId: string;
  let rootfs: string;

  beforeAll(async () => {
    recipeId = await site.addRecipe();
    const { id } = await site.startJob(recipeId);
    job = await system.waitFor(id, 'success', 240);
    imageId = job.resultant_image_id!;
    rootfs = await system.rootfsOf(imageId);
  }, 300_000);

  /** What a script prints that sees the image at $A. */
  const inImage = async (script: string) => {
    const { code, stdout, stderr } = await system.withMounted([rootfs], script);
    if (code !== 0) throw new Error(stderr);
    return stdout;
  };

  it('goes through the statuses of a build', async () => {
    expect((await historyOf(job.id)).statuses).toEqual([
      'creating',
      'fetching_recipe',
      'waiting_for_repos',
      'building_image',
      'packaging_artifacts',
      'success',
    ]);
    expect(job).toMatchObject({ job_type: 'create', artifact_id: recipeId, ssh_containers: null });
  });

  it('tells how far it is, also in the words of KIWI-NG', async () => {
    const { stages } = await historyOf(job.id);
    expect(stages).toContain('fetching_recipe: unpack');
    // Once a second, whatever is done then.
    expect(stages.join('\n')).toMatch(
      /^building_image: (Installing bootstrap packages|Calling \S+\.sh script|Creating XZ compressed tar archive|Setting up repository|Preparing new root system)/m,
    );
    expect(stages).toContain('packaging_artifacts: pack');
  });

  it('installs exactly the packages that the recipe asks for', async () => {
    expect(await inImage('rpm --root "$A" --dbpath /var/lib/rpm -qa --qf "%{NAME}\\n" | sort')).toBe(
      `${PACKAGES.join('\n')}\n`,
    );
    expect(await inImage('cat "$A/etc/motd"')).toBe('from a package\n');
  });

  it('runs config.sh and images.sh of the recipe, and adds its overlay', async () => {
    expect(await inImage('cat "$A/etc/config-sh" "$A/etc/images-sh" "$A/etc/overlay"')).toBe(
      'made by config.sh\nmade by images.sh\nfrom the overlay of the recipe\n',
    );
  });

  it('puts the certificate of the site CA where programs and operators look for it', async () => {
    const certificate = await readFile(system.file('state/ca/certificate_authority.crt'), 'utf8');
    const places = ['etc/cray/ca', 'usr/share/pki/trust/anchors'];
    const files = [`${places[0]}/certificate_authority.crt`, `${places[1]}/cray_certificate_authority.crt`];
    for (const file of files) expect(await inImage(`cat "$A/${file}"`)).toBe(certificate);
  });

  it('leaves nothing of the machine that built it in the image', async () => {
    expect(await inImage('cd "$A"; find tmp var/tmp proc sys -mindepth 1')).toBe('');
    expect(await inImage('find "$A" -xdev -name "resolv.conf*"')).toBe('');
  });

  it('registers the image with the recipe and the job that made it, and the list of its packages', async () => {
    const image = await system.api.request<object>('GET', `/images/${imageId}`);
    const { link } = await system.api.request<{ link: { etag: string } }>('GET', `/recipes/${recipeId}`);
    expect(image).toMatchObject({
      name: 'built',
      arch: 'x86_64',
      job_id: job.id,
      recipe: { id: recipeId, name: 'tiny', etag: link.etag },
    });
    const { artifacts } = await system.manifestOf(imageId);
    expect(artifacts.map(({ type }) => type)).toEqual(
      (['rootfs', 'kernel', 'initrd', 'packages'] as const).map((name) => ARTIFACT_TYPE[name]),
    );
    const contents = await Promise.all(
      artifacts.map(async ({ link: { path }, md5 }) => ({ md5, content: await readFile(await system.download(path)) })),
    );
    for (const { md5, content } of contents) expect(createHash('md5').update(content).digest('hex')).toBe(md5);
    expect(contents[1]!.content.toString()).toBe('a kernel would stand here\n');
    const names = contents[3]!.content
      .toString()
      .trim()
      .split('\n')
      .map((line) => line.split('|')[0]);
    expect(new Set(names)).toEqual(new Set(PACKAGES));
  });

  it('tells the log of every phase by API', async () => {
    const log = await (await fetch(`${system.url}/v3/jobs/${job.id}/logs`)).text();
    expect(log).toContain('filled in the templates files=config.xml');
    expect(log).toContain('Calling images.sh script');
    expect(log).toContain('"ims_image_record"');
    // Nobody uses the archive that KIWI-NG packs after the scripts.
    expect(log).toMatch(/EXEC: \[.*xz -f -0 /);
  });

  it('leaves nothing when it is deleted', async () => {
    await system.api.request('DELETE', `/jobs/${job.id}`);
    await system.expectNoTraces(job.id);
  });

  it('makes an image that can be customized', async () => {
    const { id } = await site.customize(imageId);
    const waiting = await system.waitFor(id, 'waiting_on_user');
    await system.ssh(waiting, 'echo customized > /mnt/image/image-root/etc/motd; touch /mnt/image/complete');
    const done = await system.waitFor(id, 'success');
    const changed = await system.rootfsOf(done.resultant_image_id!);
    const { stdout } = await system.withMounted([changed], 'cat "$A/etc/motd" "$A/etc/config-sh"');
    expect(stdout).toBe('customized\nmade by config.sh\n');
  }, 60_000);

  it('keeps the recipe from clients of version 2', async () => {
    const image = (await (await fetch(`${system.url}/v2/images/${imageId}`)).json()) as object;
    expect(Object.keys(image)).not.toContain('recipe');
  });
});

it('starts from what ims-load-artifacts registers and `cray ims jobs create` asks for', async () => {
  const ask = async <T>(method: string, at: string, body: object): Promise<T> => {
    const headers = { 'content-type': 'application/json' };
    const answer = await fetch(`${system.url}${at}`, { method, headers, body: JSON.stringify(body) });
    expect([at, answer.ok]).toEqual([at, true]);
    return (await answer.json()) as T;
  };
  const { id: recipeId } = await ask<{ id: string }>('POST', '/recipes', {
    recipe_type: 'kiwi-ng',
    linux_distribution: 'sles15',
    name: 'cray-shasta-compute',
    template_dictionary: site.valuesOf(site.repository.url),
  });
  const body = await readFile(await packRecipe(DEMO_RECIPE, system.file('compute.tgz')));
  const location = { bucket: 'ims', key: `recipes/${recipeId}/recipe.tar.gz` };
  const metadata = { md5sum: createHash('md5').update(body).digest('hex') };
  const { etag } = await system.store.put(location, { body, metadata });
  const link = { path: `s3://ims/${location.key}`, etag, type: 's3' };
  await ask('PATCH', `/recipes/${recipeId}`, { link });
  const { id } = await ask<{ id: string }>('POST', '/apis/ims/v3/jobs', {
    job_type: 'create',
    artifact_id: recipeId,
    public_key_id: await system.addKey(),
    image_root_archive_name: 'compute',
    initrd_file_name: 'initrd',
    kernel_parameters_file_name: 'kernel-parameters',
  });
  const { resultant_image_id } = await system.waitFor(id, 'success', 120);
  const image = await system.api.request('GET', `/images/${resultant_image_id}`);
  expect(image).toMatchObject({ name: 'compute', arch: 'x86_64', recipe: { id: recipeId, etag } });
}, 180_000);

it('two build at once', async () => {
  const recipeId = await site.addRecipe();
  const jobs = await Promise.all(
    ['one', 'two'].map((name) => site.startJob(recipeId, { image_root_archive_name: name })),
  );
  await until('both build', async () => {
    const now = await Promise.all(jobs.map(({ id }) => system.api.job(id)));
    return now.every(({ status }) => status === 'building_image');
  });
  for (const { id, image_root_archive_name: name } of jobs) {
    const { resultant_image_id } = await system.waitFor(id, 'success', 240);
    expect(await system.api.request('GET', `/images/${resultant_image_id}`)).toMatchObject({ name, job_id: id });
  }
}, 300_000);

it('installs by dnf where the recipe says so', async () => {
  const config = DEMO_RECIPE['config.xml']!.replace('>zypper<', '>dnf4<').replace('name="zypper"', 'name="dnf"');
  const { id } = await site.startJob(await site.addRecipe({ files: { 'config.xml': config } }));
  const { resultant_image_id } = await system.waitFor(id, 'success', 120);
  const rootfs = await system.rootfsOf(resultant_image_id!);
  const { stdout } = await system.withMounted([rootfs], 'cat "$A/etc/motd" "$A/etc/config-sh"');
  expect(stdout).toBe('from a package\nmade by config.sh\n');
}, 180_000);

/** A certificate for loopback that the CA of the system signs. */
async function issueCertificate(): Promise<Certificate> {
  const [key, request, cert, extensions] = ['key', 'csr', 'crt', 'ext'].map((name) =>
    system.file(`repository.${name}`),
  );
  const ca = (name: string) => system.file(`state/ca/certificate_authority.${name}`);
  await writeFile(extensions!, 'subjectAltName=IP:127.0.0.1\n');
  const run = (...args: string[]) => execFileSync('openssl', args, { stdio: 'pipe' });
  run('req', '-newkey', 'rsa:2048', '-nodes', '-keyout', key!, '-out', request!, '-subj', '/CN=repository');
  run(
    'x509',
    '-req',
    '-in',
    request!,
    '-CA',
    ca('crt'),
    '-CAkey',
    ca('key'),
    '-CAcreateserial',
    '-out',
    cert!,
    '-days',
    '2',
    '-extfile',
    extensions!,
  );
  return { cert: await readFile(cert!, 'utf8'), key: await readFile(key!, 'utf8') };
}

it('takes packages by https from a repository whose certificate the site CA has signed', async () => {
  const repository = await new RepositoryServer(system.file('repository'), await issueCertificate()).start();
  try {
    const recipeId = await site.addRecipe({ values: site.valuesOf(repository.url) });
    await system.waitFor((await site.startJob(recipeId)).id, 'success', 120);
    expect(repository.requests[0]).toBe('HEAD /repodata/repomd.xml');
    expect(repository.requests).toContainEqual(expect.stringMatching(/^GET .*motd-tiny.*\.rpm$/));
  } finally {
    await repository.stop();
  }
}, 180_000);

it('waits for a repository that comes up after twenty seconds, and says which one it waits for', async () => {
  const repository = new RepositoryServer(system.file('repository'));
  const port = await freePorts();
  const url = `http://127.0.0.1:${port}`;
  const { id } = await site.startJob(await site.addRecipe({ values: site.valuesOf(url) }));
  await until('it says so', async () => {
    const { status, status_reason } = await system.api.job(id);
    return status === 'waiting_for_repos' && status_reason !== null;
  });
  expect((await system.api.job(id)).status_reason).toBe(
    `waits for repositories: demo (${url}/repodata/repomd.xml) could not be asked (ECONNREFUSED)`,
  );
  await sleep(20_000);
  await repository.start(port);
  try {
    expect((await system.waitFor(id, 'success', 120)).status_reason).toBeNull();
  } finally {
    await repository.stop();
  }
}, 180_000);
