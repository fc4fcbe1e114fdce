import { readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import manifest from '../../package.json' with { type: 'json' };

const { dependencies } = manifest;

/* What stands in the Dockerfiles; that they can be built, and do their work, is tried on a cluster (test/cluster). */

const DIRECTORY = 'docker';
const IMAGES = readdirSync(DIRECTORY);

function dockerfile(image: string): string {
  return readFileSync(path.join(DIRECTORY, image, 'Dockerfile'), 'utf8');
}

/** Names of Debian packages that a Dockerfile installs, in all its stages. */
function packagesOf(image: string): string[] {
  const installs = dockerfile(image).matchAll(/apt-get install [^&]*?--no-install-recommends([^&;]*)/g);
  return [...installs].flatMap(([, names]) => names!.split(/[\s\\]+/).filter(Boolean));
}

it('all stand on one version of Node.js and Debian, named in full', () => {
  const bases = IMAGES.filter((image) => image !== 'builder').map(
    (image) => /^ARG NODE=(.*)$/m.exec(dockerfile(image))![1],
  );
  expect(new Set(bases).size).toBe(1);
  expect(bases[0]).toMatch(/^docker\.io\/library\/node:\d+\.\d+\.\d+-bookworm-slim$/);
  for (const image of IMAGES) expect(dockerfile(image)).not.toMatch(/^FROM (?!\$\{(NODE|WORKER)\})/m);
});

it.each([[['machine']], [['worker', 'builder']]])('%j: build recipes by each package manager', (images) => {
  const packages = images.flatMap((image) => packagesOf(image));
  const builds = ['python3-venv', 'rsync', 'xz-utils', 'zstd', 'rpm'];
  const managers = ['zypper', 'dnf', 'mmdebstrap', 'arch-test'];
  expect(packages).toEqual(expect.arrayContaining([...builds, ...managers]));
  // Of that only the emulator of aarch64 goes into the image.
  expect(packages).toContain('qemu-user-static');
});

it('worker: has the modules that it imports, and no others', () => {
  const [, uninstalled] = /npm uninstall([^&]*)/.exec(dockerfile('worker'))!;
  const kept = Object.keys(dependencies).filter((name) => !uninstalled!.split(/\s+/).includes(name));
  const sources = ['src/worker', 'src/protocol', 'src/artifacts'].flatMap((directory) =>
    readdirSync(directory, { recursive: true, encoding: 'utf8' })
      .filter((file) => /(?<!\.spec|\.module|\.dto)\.ts$/.test(file))
      .map((file) => readFileSync(path.join(directory, file), 'utf8')),
  );
  const isImported = (name: string) => sources.some((source) => new RegExp(`(from |import\\()'${name}'`).test(source));
  expect(kept).toEqual(Object.keys(dependencies).filter(isImported));
});
