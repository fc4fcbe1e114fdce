import { BuildSite } from '../support/build-site.js';

/** Runs a server after these commands, in a mount namespace of its own. */
const after = (...commands: string[]) => {
  const script = ['set -e', ...commands, 'exec "$@"'].join('; ');
  return ['unshare', '--mount', '--propagation', 'private', 'sh', '-c', script, 'sh'];
};

/** The reason of a build on a machine that these commands have made. */
async function reasonAfter(commands: string[], environment: Record<string, string> = {}): Promise<string> {
  const site = await BuildSite.start(environment, after(...commands));
  try {
    return await site.reasonOf({});
  } finally {
    await site.stop();
  }
}

it('a build says in one line which packages the machine lacks', async () => {
  const hide = ['rsync', 'rpm'].map((name) => `mount --bind /etc/passwd /usr/bin/${name}`);
  expect(await reasonAfter(hide)).toBe(
    'this machine cannot run create jobs: commands are missing: apt-get install -y --no-install-recommends rsync rpm',
  );
}, 90_000);

it('a build says in one line that KIWI-NG cannot be installed, from where, and what to do', async () => {
  // A site whose index asks for a password, and is away.
  const pip = '[global]\\nindex-url = http://me:hidden@127.0.0.1:9/simple\\nretries = 0\\n';
  const etc = [
    'mount -t tmpfs none /mnt',
    'mkdir /mnt/upper /mnt/work /mnt/kiwi',
    'mount -t overlay none -o lowerdir=/etc,upperdir=/mnt/upper,workdir=/mnt/work /etc',
    `printf '${pip}' > /etc/pip.conf`,
  ];
  const reason = await reasonAfter(etc, { JOB_KIWI_DIR: '/mnt/kiwi' });
  expect(reason).toMatch(
    /^KIWI-NG cannot be installed on the machine that runs the job: ERROR: .*poetry-core.*\. It comes from PyPI: let the machine reach that, or name an index in \/etc\/pip\.conf; `npm run setup:create` tries it again$/,
  );
  expect(reason).not.toContain('hidden');
}, 120_000);
