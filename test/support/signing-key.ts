import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { DEMO_RECIPE } from '../../src/quickstart/demo-recipe.js';
import { command } from './system.js';

/** config.xml of the demo recipe, which takes signed packages only. */
export function recipeOfSignedPackages(): string {
  return DEMO_RECIPE['config.xml']!.replace('<rpm-check-signatures>false', '<rpm-check-signatures>true').replace(
    '<repository type',
    '<repository package_gpgcheck="true" repository_gpgcheck="false" type',
  );
}

/** A key by which a site signs its packages. */
export class SigningKey {
  private constructor(private readonly home: string) {}

  /** Makes a key of its own. Needs Debian's packages gnupg and rpm. */
  static async make(): Promise<SigningKey> {
    // The agent listens on a socket in it: its path must be short.
    const key = new SigningKey(await mkdtemp(path.join(tmpdir(), 'ims-gpg-')));
    await key.run('gpg', '--batch', '--passphrase', '', '--quick-gen-key', 'site', 'rsa2048', 'sign', 'never');
    return key;
  }

  /** Writes the public part to a file, as packages are checked by. */
  async export(file: string): Promise<void> {
    await this.run('gpg', '--batch', '--yes', '--armor', '--output', file, '--export', 'site');
  }

  /** Signs all packages in the directory of a repository, and makes its index anew. */
  async signRepository(directory: string): Promise<void> {
    const entries = await readdir(directory, { recursive: true });
    const packages = entries.filter((name) => name.endsWith('.rpm')).map((name) => path.join(directory, name));
    await this.run('rpmsign', '--define', '_gpg_name site', '--define', '__gpg /usr/bin/gpg', '--addsign', ...packages);
    await this.run('createrepo_c', '--quiet', directory);
  }

  async remove(): Promise<void> {
    await this.run('gpgconf', '--kill', 'gpg-agent');
    await rm(this.home, { recursive: true, force: true });
  }

  private async run(program: string, ...args: string[]): Promise<void> {
    const env = { ...process.env, GNUPGHOME: this.home };
    const { code, stderr } = await command(program, args, { env });
    if (code !== 0) throw new Error(`${program} failed: ${stderr}`);
  }
}
