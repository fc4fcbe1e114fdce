import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer, type RequestListener, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import type { CreateSpec } from '../../src/protocol/job-spec.js';
import type { JobReport } from '../../src/protocol/job-report.js';
import type { ServerRecord } from '../../src/worker/ims-client.js';
import { JobDirectory } from '../../src/worker/job-directory.js';
import type { PhaseContext } from '../../src/worker/phases/phase.js';
import { waitForRepos } from '../../src/worker/phases/wait-for-repos.js';
import { aCreateSpec } from '../support/job-spec.js';

let directory: JobDirectory;
let server: Server;
let answer: RequestListener;
let url: string;
let reports: JobReport[];

beforeEach(async () => {
  directory = new JobDirectory(await mkdtemp(path.join(tmpdir(), 'ims-repositories-')));
  await mkdir(directory.recipe);
  reports = [];
  server = createServer((request, response) => answer(request, response));
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
});
afterEach(async () => {
  server.closeAllConnections();
  await new Promise((resolve) => server.close(resolve));
  await rm(directory.path, { recursive: true, force: true });
});

/** Waits for the repositories of a description. */
async function wait(repositories: string, more: Partial<CreateSpec> = {}): Promise<void> {
  await writeFile(path.join(directory.recipe, 'config.xml'), `<image>${repositories}</image>`);
  const ims = {
    report: async (report: JobReport): Promise<ServerRecord> => {
      reports.push(report);
      return { id: 'a' };
    },
  };
  await waitForRepos({ job: aCreateSpec(more), directory, ims, log: () => {} } as unknown as PhaseContext<CreateSpec>);
}

const repository = (name: string, attributes = '') =>
  `<repository alias="${name}" ${attributes}><source path="${url}/${name}"/></repository>`;

it('many repositories are asked sixteen at a time', async () => {
  let [open, most] = [0, 0];
  answer = (_request, response) => {
    most = Math.max(most, ++open);
    setTimeout(() => {
      open--;
      response.end();
    }, 20);
  };
  await wait(Array.from({ length: 100 }, (_, index) => repository(`r${index}`)).join(''));
  expect(most).toBe(16);
});

it('a repository that comes up just before the deadline is seen', async () => {
  const begin = Date.now();
  // Asked with growing pauses alone, the last question would come after 3.5 s.
  answer = (_request, response) => response.writeHead(Date.now() - begin > 4200 ? 200 : 503).end();
  await wait(repository('late'), { repositorySeconds: 5 });
  expect(Date.now() - begin).toBeGreaterThan(4200);
});

it('one that never answers ends the wait after the deadline, and those that answer are not named', async () => {
  answer = (request, response) => {
    if (request.url!.includes('good')) response.end();
  };
  await expect(wait(repository('good') + repository('silent'), { repositorySeconds: 1 })).rejects.toThrow(
    `repositories of the recipe did not come up within 1 s (JOB_REPOSITORY_SECONDS): silent (${url}/silent/repodata/repomd.xml) did not answer in time. Correct`,
  );
}, 20_000);

it('what a recipe calls its repositories makes no reason that is too long', async () => {
  answer = (_request, response) => response.writeHead(404).end();
  const many = Array.from({ length: 9 }, (_, index) => repository(`${index}${'😀'.repeat(3000)}`)).join('');
  await expect(wait(many, { repositorySeconds: 1 })).rejects.toThrow(/; and 4 more\. Correct/);
  for (const { status_reason } of reports) expect(status_reason?.length ?? 0).toBeLessThan(8192);
});

it('a repository of another architecture is not waited for', async () => {
  answer = (request, response) => response.writeHead(request.url!.includes('mine') ? 200 : 404).end();
  await wait(repository('mine', 'arch="x86_64,aarch64"') + repository('other', 'arch="s390x"'));
});
