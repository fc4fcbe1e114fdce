import { execFile } from 'node:child_process';
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { promisify } from 'node:util';
import { S3ArtifactStore } from '../../src/artifacts/s3-artifact-store.js';
import { findLocation } from '../../src/protocol/artifact-link.js';
import { ARTIFACT_TYPE, type ImageManifest } from '../../src/protocol/image-manifest.js';
import { Api, type JobView } from '../../src/quickstart/api.js';
import { buildDemoImage, type DemoImage, type DemoImageOptions } from '../../src/quickstart/demo-image.js';
import { registerImage } from '../../src/quickstart/register-image.js';
import { freePorts } from './ports.js';
import { ServerProcess } from './server-process.js';
import { type SshAccess, sshAccess } from './ssh.js';

const run = promisify(execFile);

export const BUCKET = 'boot-images';
/** Keys of the store. */
export const CREDENTIALS = { accessKey: 'test-access', secretKey: 'test-secret' };

/** What a command did. */
export interface CommandResult {
  code: number;
  stdout: string;
  stderr: string;
}

/** Runs a command and tells how it ended, also where it failed. */
export async function command(
  name: string,
  args: readonly string[],
  options: { cwd?: string; env?: Record<string, string>; timeout?: number } = {},
): Promise<CommandResult> {
  const env = { ...process.env, ...options.env };
  return run(name, [...args], { maxBuffer: 64 << 20, timeout: 60_000, ...options, env }).then(
    ({ stdout, stderr }) => ({ code: 0, stdout, stderr }),
    (error: { code?: number | string; stdout?: string; stderr?: string }) => ({
      code: typeof error.code === 'number' ? error.code : 255,
      stdout: error.stdout ?? '',
      stderr: error.stderr ?? String(error),
    }),
  );
}

export const sleep = (milliseconds: number): Promise<void> =>
  new Promise((resolve) => setTimeout(resolve, milliseconds));

/** Looks again and again until a condition holds. */
export async function until(what: string, condition: () => Promise<boolean>, seconds = 20): Promise<void> {
  for (const deadline = Date.now() + seconds * 1000; Date.now() < deadline; await sleep(50))
    if (await condition()) return;
  throw new Error(`waited ${seconds} s in vain: ${what}`);
}

/** A whole system on this machine: the compiled server as a process of its own, everything embedded, in a directory that goes with it. */
export class System {
  private server: ServerProcess | null = null;
  readonly store: S3ArtifactStore;

  private constructor(
    readonly directory: string,
    private readonly environment: Record<string, string>,
    /** Where the embedded store listens. */
    readonly storeUrl: string,
    private readonly prefix: string[],
  ) {
    this.store = new S3ArtifactStore({
      endpoint: storeUrl,
      ...CREDENTIALS,
      sslValidate: true,
      region: 'us-east-1',
    });
  }

  /**
   * @param environment beside what every system gets
   * @param prefix a command that runs the server, as `unshare …`
   */
  static async start(environment: Record<string, string> = {}, prefix: string[] = []): Promise<System> {
    const directory = await mkdtemp(path.join(tmpdir(), 'ims-system-'));
    const storePort = await freePorts();
    const system = new System(
      directory,
      {
        STATE_DIR: path.join(directory, 'state'),
        PORT: '0',
        EMBEDDED_S3_PORT: String(storePort),
        S3_ACCESS_KEY: CREDENTIALS.accessKey,
        S3_SECRET_KEY: CREDENTIALS.secretKey,
        LOG_LEVEL: 'info',
        JOB_DISK_RESERVE_MIB: '16',
        ...environment,
      },
      environment['S3_ENDPOINT'] ?? `http://127.0.0.1:${storePort}`,
      prefix,
    );
    await command('ssh-keygen', ['-q', '-t', 'ed25519', '-N', '', '-f', system.file('key')]);
    await system.startServer();
    return system;
  }

  async startServer(): Promise<void> {
    this.server = await ServerProcess.start(this.environment, this.prefix);
    await this.store.ready(['ims', BUCKET]).catch(async (error: unknown) => {
      await this.killServer();
      throw error;
    });
  }

  /** Ends the server as a power cut would. */
  async killServer(): Promise<void> {
    await this.server!.kill();
  }

  /** Ends the server as an operator does. */
  async stopServer(): Promise<void> {
    await this.server!.stop();
  }

  async stop(): Promise<void> {
    await this.server?.stop();
    await rm(this.directory, { recursive: true, force: true });
  }

  get url(): string {
    return this.server!.url;
  }

  get serverPid(): number {
    return this.server!.pid;
  }

  get log(): string {
    return this.server!.log;
  }

  get api(): Api {
    return new Api(this.url);
  }

  file(...names: string[]): string {
    return path.join(this.directory, ...names);
  }

  jobDirectory(id: string): string {
    return this.file('state/jobs', id);
  }

  /** Everything that the phases of a job printed. */
  async jobLog(id: string): Promise<string> {
    if (!(await readdir(this.file('state')).catch(() => [] as string[])).includes('jobs'))
      return fetch(`${this.url}/v3/jobs/${id}/logs`).then((answer) => answer.text());
    const logs = path.join(this.jobDirectory(id), 'logs');
    const names = await readdir(logs).catch(() => []);
    return (await Promise.all(names.map((name) => readFile(path.join(logs, name), 'utf8')))).join('\n');
  }

  async addKey(): Promise<string> {
    const public_key = await readFile(this.file('key.pub'), 'utf8');
    return (await this.api.request<{ id: string }>('POST', '/public-keys', { name: 'test', public_key })).id;
  }

  async addImage(options: DemoImageOptions & { image?: DemoImage; name?: string } = {}): Promise<string> {
    const image = options.image ?? (await buildDemoImage(this.file(`image-${Math.random()}`), options));
    return registerImage(this.api, this.store, BUCKET, options.name ?? 'source', image);
  }

  async startJob(imageId: string, keyId: string, more: object = {}): Promise<JobView> {
    return this.api.request('POST', '/jobs', {
      job_type: 'customize',
      artifact_id: imageId,
      public_key_id: keyId,
      image_root_archive_name: 'result',
      ...more,
    });
  }

  /** Waits for a status; where the job takes another end, the error tells what its phases printed. */
  async waitFor(id: string, status: JobView['status'], seconds = 60): Promise<JobView> {
    return this.api.waitFor(id, status, seconds).catch(async (error: Error) => {
      throw new Error(`${error.message}\n${await this.jobLog(id)}`);
    });
  }

  /** Options with which ssh, scp and sftp reach a job's shell and trust nothing but the keys of its record. */
  sshOptions(job: JobView): Promise<SshAccess> {
    return sshAccess(job, this.file('key'), this.file(`known-hosts-${job.id}`));
  }

  /** Runs a command in a job's shell. */
  async ssh(job: JobView, script: string, ...options: string[]): Promise<CommandResult> {
    const { options: common, host, port } = await this.sshOptions(job);
    return command('ssh', [...common, ...options, '-p', port, `root@${host}`, script]);
  }

  /** The manifest of an image. */
  async manifestOf(imageId: string): Promise<ImageManifest> {
    const { link } = await this.api.request<{ link: { path: string } }>('GET', `/images/${imageId}`);
    return JSON.parse((await this.store.readSmall(findLocation(link.path)!, 1 << 20)).toString()) as ImageManifest;
  }

  /** An artifact's content, in a file. */
  async download(linkPath: string): Promise<string> {
    const file = this.file(`download-${Math.random()}`);
    const pieces = await (await this.store.read(findLocation(linkPath)!)).toArray();
    await writeFile(file, Buffer.concat(pieces as Buffer[]));
    return file;
  }

  /**
   * Runs a shell script with SquashFS images mounted by the kernel at $A, $B and so on, in a mount namespace of its own.
   * @returns what it printed
   */
  async withMounted(images: readonly string[], script: string): Promise<CommandResult> {
    const points = await Promise.all(images.map((_, index) => mkdtemp(this.file(`mount-${index}-`))));
    const mounts = images
      .map((image, index) => `mount -t squashfs -o ro,loop '${image}' '${points[index]}'`)
      .join(' && ');
    const env = Object.fromEntries(points.map((point, index) => [String.fromCharCode(65 + index), point]));
    return command('unshare', ['--mount', '--propagation', 'private', 'bash', '-c', `set -e; ${mounts}; ${script}`], {
      env,
    });
  }

  /**
   * How one image differs from another, line by line as rsync(1) itemizes it: content, kind, mode, owner, times, links, devices and
   * extended attributes; both mounted by the kernel.
   */
  async differences(before: string, after: string): Promise<string[]> {
    const { code, stdout, stderr } = await this.withMounted(
      [before, after],
      'rsync --archive --hard-links --xattrs --checksum --delete --dry-run --itemize-changes "$B/" "$A/"',
    );
    if (code !== 0) throw new Error(stderr);
    return stdout.split('\n').filter(Boolean);
  }

  /** The rootfs of an image, in a file. */
  async rootfsOf(imageId: string): Promise<string> {
    const { artifacts } = await this.manifestOf(imageId);
    return this.download(artifacts.find(({ type }) => type === ARTIFACT_TYPE.rootfs)!.link.path);
  }

  /** What is on this machine of a job, as sentences: processes, mounts, loop devices, its directory. */
  async tracesOf(jobId: string): Promise<string[]> {
    const traces: string[] = [];
    if ((await readdir(this.file('state/jobs'))).includes(jobId)) traces.push('its directory');
    for (const pid of (await readdir('/proc')).filter((name) => /^\d+$/.test(name))) {
      const [mounts, arguments_] = await Promise.all(
        ['mountinfo', 'cmdline'].map((name) => readFile(`/proc/${pid}/${name}`, 'utf8').catch(() => '')),
      );
      if (arguments_!.includes(jobId)) traces.push(`process ${pid}: ${arguments_!.replaceAll('\0', ' ')}`);
      if (mounts!.includes(jobId)) traces.push(`a mount in process ${pid}`);
    }
    const { stdout } = await command('losetup', ['--list', '--noheadings', '--output', 'BACK-FILE']);
    if (stdout.includes(jobId)) traces.push('a loop device');
    return traces;
  }

  async expectNoTraces(jobId: string, seconds = 20): Promise<void> {
    let traces: string[] = [];
    await until('nothing is left', async () => (traces = await this.tracesOf(jobId)).length === 0, seconds).catch(
      (error: Error) => {
        throw new Error(`${error.message}: ${traces.join('; ')}`);
      },
    );
  }

  /** Keys of everything in the bucket of images. */
  async artifacts(): Promise<string[]> {
    const keys: string[] = [];
    for await (const { key } of this.store.list(BUCKET, '')) keys.push(key);
    return keys;
  }

  async makeDirectory(...names: string[]): Promise<string> {
    await mkdir(this.file(...names), { recursive: true });
    return this.file(...names);
  }
}
