import { writeFile } from 'node:fs/promises';
import type { JobView } from '../../src/quickstart/api.js';
import { command, type System } from './system.js';

/** The sample playbook of the procedure, in a form that every image can run. */
function playbook(root: string, complete: string, chroot: string): string {
  return `
- hosts: all
  gather_facts: true
  tasks:
    - name: look at the image root
      command: ls -l ${root}/
    - name: run a command of the image
      command: ${chroot} /bin/sh -c "echo of the image > /opt/by-command"
    - name: copy a file with owner and permissions
      copy: { content: "copied\\n", dest: ${root}/opt/by-copy, owner: "1234", group: "4321", mode: "0640" }
    - name: write a file from a template
      template: { src: template.j2, dest: ${root}/opt/by-template }
    - name: make a directory
      file: { path: ${root}/opt/by-file, state: directory, mode: "2775" }
    - name: exit the build container
      copy: { content: "", dest: ${complete} }
`;
}

async function ansible(system: System, job: JobView, program: 'ansible' | 'ansible-playbook', ...args: string[]) {
  const { options, host, port } = await system.sshOptions(job);
  const inventory = system.file('inventory');
  const common = options.join(' ');
  await writeFile(
    inventory,
    `image ansible_host=${host} ansible_port=${port} ansible_user=root ansible_python_interpreter=/usr/bin/python3 ansible_ssh_common_args='${common}'\n`,
  );
  const env = { ANSIBLE_LOCAL_TEMP: system.file('ansible'), HOME: system.directory, LC_ALL: 'C.UTF-8' };
  return command(program, ['-i', inventory, ...args], { env, timeout: 120_000, cwd: system.directory });
}

/** Plays against the shell of a job, to its end. */
export async function play(system: System, job: JobView, jail: boolean): Promise<void> {
  const [root, chroot] = jail ? ['', ''] : ['/mnt/image/image-root', 'chroot /mnt/image/image-root'];
  expect((await ansible(system, job, 'ansible', 'all', '-m', 'ping')).stdout).toContain('"ping": "pong"');
  await writeFile(system.file('template.j2'), 'made for {{ ansible_architecture }}\n');
  await writeFile(system.file('play.yml'), playbook(root!, jail ? '/tmp/complete' : '/mnt/image/complete', chroot!));
  const { stdout } = await ansible(system, job, 'ansible-playbook', system.file('play.yml'));
  // The last task may lose its connection: the shell closes as soon as the file is there.
  expect(stdout).toMatch(/make a directory.*\n+changed/);
}

/** An image is what the playbook makes of it. */
export async function expectPlayed(system: System, imageId: string): Promise<void> {
  const script =
    'cd "$A/opt"; head by-command by-copy by-template; stat -c "%n %a %u:%g" by-copy by-file; ls -A "$A/root" "$A/tmp"';
  const { stdout } = await system.withMounted([await system.rootfsOf(imageId)], script);
  expect(stdout).toContain('==> by-command <==\nof the image\n');
  expect(stdout).toContain('==> by-copy <==\ncopied\n');
  expect(stdout).toContain('==> by-template <==\nmade for x86_64\n');
  expect(stdout).toContain('by-copy 640 1234:4321\n');
  expect(stdout).toContain('by-file 2775 0:0\n');
}
