import { execFile } from 'node:child_process';
import { mkdir, mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { promisify } from 'node:util';
import { S3ArtifactStore } from '../artifacts/s3-artifact-store.js';
import { BadConfiguration, type Config, loadConfig } from '../config/config.js';
import { provideCredentials } from '../embedded/credentials.js';
import { Api, type JobView } from './api.js';
import { type BuildContext, buildOnce } from './build-story.js';
import { buildDemoImage } from './demo-image.js';
import { buildDemoRepository } from './demo-repository.js';
import { type PackageServer, servePackages } from './package-server.js';
import { installPackages, type Show } from './packages.js';
import { registerImage } from './register-image.js';
import { ServerProcess } from './server-process.js';
import { customizeOnce } from './story.js';

const run = promisify(execFile);
const start = Date.now();

function say(text: string): void {
  process.stdout.write(`${((Date.now() - start) / 1000).toFixed(1).padStart(6)} s  ${text}\n`);
}

/** Everything that both ways through the quickstart need. */
interface Stage {
  server: ServerProcess;
  api: Api;
  store: S3ArtifactStore;
  config: Config;
  /** Keys and downloads. */
  directory: string;
  imageId: string;
  publicKeyId: string;
}

async function makeKey(directory: string): Promise<string> {
  const file = path.join(directory, 'key');
  const made = await readFile(`${file}.pub`, 'utf8').catch(() => null);
  if (made) return made;
  await run('ssh-keygen', ['-q', '-t', 'ed25519', '-N', '', '-C', 'quickstart', '-f', file]);
  return readFile(`${file}.pub`, 'utf8');
}

/** The record of an earlier quickstart in the same state directory is taken again. */
async function registerKey(api: Api, publicKey: string): Promise<string> {
  const keys = await api.request<{ id: string; public_key: string }[]>('GET', '/public-keys');
  const known = keys.find(({ public_key }) => public_key === publicKey);
  return (
    known ??
    (await api.request<{ id: string }>('POST', '/public-keys', { name: 'quickstart key', public_key: publicKey }))
  ).id;
}

async function provideImage(api: Api, store: S3ArtifactStore, bucket: string, directory: string): Promise<string> {
  const images = await api.request<{ id: string; name: string; link: unknown }[]>('GET', '/images');
  const known = images.find(({ name, link }) => name === 'demo' && link);
  return known?.id ?? registerImage(api, store, bucket, 'demo', await buildDemoImage(path.join(directory, 'image')));
}

async function setStage(environment: Record<string, string>, config: Config): Promise<Stage> {
  const directory = path.join(config.stateDir, 'quickstart');
  await mkdir(directory, { recursive: true, mode: 0o700 });
  const server = await ServerProcess.start(environment, (line) => {
    if (/"level":"(error|fatal)"/.test(line)) say(line);
  });
  try {
    say(`server, PostgreSQL and S3 store run; Swagger UI: ${server.url}/docs`);
    const api = new Api(server.url);
    const credentials =
      config.s3.credentials ?? (await provideCredentials(path.join(config.stateDir, 's3-credentials')));
    const store = new S3ArtifactStore({
      endpoint: server.store,
      ...credentials,
      sslValidate: config.s3.sslValidate,
      region: config.s3.region,
    });
    await store.ready([config.s3.imsBucket, config.s3.bootImagesBucket]);
    const publicKeyId = await registerKey(api, await makeKey(directory));
    const imageId = await provideImage(api, store, config.s3.bootImagesBucket, directory);
    say(`public key ${publicKeyId} and image ${imageId} registered`);
    return { server, api, store, config, directory, imageId, publicKeyId };
  } catch (error) {
    await server.stop();
    throw error;
  }
}

/** Prints what the phases of all jobs said. */
async function printLogs(jobs: string): Promise<void> {
  const names = await readdir(jobs, { recursive: true }).catch(() => []);
  for (const name of names.filter((file) => file.endsWith('.log')))
    process.stderr.write(`--- ${name}\n${await readFile(path.join(jobs, name), 'utf8')}`);
}

/** Makes packages, and serves them for the recipe of a story. */
async function openBuild(stage: Stage): Promise<{ context: BuildContext; packages: PackageServer }> {
  const directory = path.join(stage.directory, 'packages');
  await buildDemoRepository(directory);
  const packages = await servePackages(directory);
  const jobsDirectory = path.join(stage.config.stateDir, 'jobs');
  const bucket = stage.config.s3.imsBucket;
  return { context: { ...stage, jobsDirectory, bucket, repository: packages.url, step: say }, packages };
}

async function buildAndClose(stage: Stage): Promise<void> {
  const { context, packages } = await openBuild(stage);
  try {
    await buildOnce(context);
  } finally {
    await packages.close();
  }
}

async function customizeTwice(stage: Stage): Promise<void> {
  const jobsDirectory = path.join(stage.config.stateDir, 'jobs');
  for (const jail of [false, true]) await customizeOnce({ ...stage, jobsDirectory, step: say }, jail);
}

/** Walks a whole procedure on a state directory that goes afterwards. */
async function walkOnce(walk: (stage: Stage) => Promise<void>): Promise<void> {
  const stateDir = await mkdtemp(path.join(tmpdir(), 'ims-quickstart-'));
  const environment = { STATE_DIR: stateDir, PORT: '0', EMBEDDED_S3_PORT: '0', DATABASE_URL: '', S3_ENDPOINT: '' };
  try {
    const stage = await setStage(environment, loadConfig({ ...process.env, ...environment }));
    try {
      await walk(stage);
    } catch (error) {
      await printLogs(path.join(stateDir, 'jobs'));
      throw error;
    } finally {
      await stage.server.stop();
    }
    say('done: everything worked');
  } finally {
    await rm(stateDir, { recursive: true, force: true });
  }
}

function printNextSteps({ server, imageId, publicKeyId, directory }: Stage): void {
  const body = JSON.stringify({
    job_type: 'customize',
    artifact_id: imageId,
    public_key_id: publicKeyId,
    image_root_archive_name: 'my-image',
  });
  process.stdout.write(`
Swagger UI: ${server.url}/docs

Customize the demo image, with the cray command line (hostname = "${server.url}" in its configuration):
  cray ims jobs create --job-type customize --artifact-id ${imageId} \\
    --public-key-id ${publicKeyId} --image-root-archive-name my-image
or with curl:
  curl -s -H 'Content-Type: application/json' ${server.url}/v3/jobs -d '${body}'
then, when it waits on you, with the port that the job gives:
  ssh -i ${path.join(directory, 'key')} -p PORT root@127.0.0.1
  # change /mnt/image/image-root, then: touch /mnt/image/complete
`);
}

function printBuildStep({ publicKeyId }: Stage, recipeId: string): void {
  process.stdout.write(`
Build an image from the demo recipe:
  cray ims jobs create --job-type create --artifact-id ${recipeId} \\
    --public-key-id ${publicKeyId} --image-root-archive-name my-built-image
`);
}

function describeJob({ id, status, status_reason, progress, ssh_containers, resultant_image_id }: JobView): string {
  const amount =
    progress &&
    ` ${progress.stage}${progress.total ? ` ${Math.floor((100 * (progress.done ?? 0)) / progress.total)} %` : ''}`;
  const address = status === 'waiting_on_user' && ssh_containers?.[0]?.connection_info.customer_access;
  const shell = address ? ` ssh -p ${address.port} root@${address.host}` : '';
  const image = status === 'success' ? ` image ${resultant_image_id}` : '';
  return `job ${id} ${status}${amount ?? ''}${shell}${image}${status_reason ? ` (${status_reason})` : ''}`;
}

/** Prints what changes about jobs, until the quickstart is stopped. */
async function followJobs(api: Api): Promise<void> {
  const last = new Map<string, string>();
  for (;;) {
    const jobs = await api.jobs().catch(() => []);
    for (const job of jobs) {
      const text = describeJob(job);
      if (last.get(job.id) !== text) say(text);
      last.set(job.id, text);
    }
    await new Promise((resolve) => setTimeout(resolve, 500));
  }
}

/** @param show with builds, a recipe is built, and stays for further jobs */
async function serve(show: Show): Promise<void> {
  const config = loadConfig();
  const stage = await setStage({}, config);
  const stop = () => void stage.server.stop().then(() => process.exit(0));
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, stop);
  const recipeId = show === 'builds' ? await buildOnce((await openBuild(stage)).context) : null;
  printNextSteps(stage);
  if (recipeId !== null) printBuildStep(stage, recipeId);
  process.stdout.write('\nJobs as they go (Ctrl-C stops the server):\n');
  await followJobs(stage.api);
}

try {
  const show: Show = process.argv.includes('--recipe') ? 'builds' : 'shells';
  await installPackages(say, show);
  if (process.argv.includes('--once')) await walkOnce(show === 'builds' ? buildAndClose : customizeTwice);
  else await serve(show);
} catch (error) {
  process.stderr.write(
    `${error instanceof BadConfiguration ? error.message : `the quickstart stopped: ${(error as Error).message}`}\n`,
  );
  process.exitCode = 1;
}
