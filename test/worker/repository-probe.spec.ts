import { execFileSync } from 'node:child_process';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { createServer, type RequestListener, type Server } from 'node:http';
import { createServer as createHttpsServer } from 'node:https';
import { type AddressInfo, createServer as createTcpServer } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { probe, readTrust } from '../../src/worker/repository-probe.js';

const servers: { close: () => unknown; closeAllConnections?: () => void }[] = [];
afterEach(() => {
  for (const server of servers.splice(0)) {
    server.closeAllConnections?.();
    server.close();
  }
});

async function listen(server: Server, host = '127.0.0.1'): Promise<number> {
  servers.push(server);
  await new Promise<void>((resolve) => server.listen(0, host, resolve));
  return (server.address() as AddressInfo).port;
}

/** Serves on loopback; tells the address and what was asked for. */
async function serve(answer: RequestListener): Promise<{ url: string; asked: string[] }> {
  const asked: string[] = [];
  const server = createServer((request, response) => {
    asked.push(`${request.method} ${request.url} ${request.headers.authorization ?? ''}`.trim());
    answer(request, response);
  });
  return { url: `http://127.0.0.1:${await listen(server)}`, asked };
}

/** Serves answers of these statuses and places by path; 404 for all others. */
const serveTable = (table: Record<string, [status: number, location?: string]>) =>
  serve((request, response) => {
    const [status, location] = table[request.url!] ?? [404];
    response.writeHead(status, location === undefined ? {} : { location }).end();
  });

async function ask(url: string, options: { ca?: string | null; bundles?: string[]; milliseconds?: number } = {}) {
  const { ca = null, bundles = [], milliseconds = 5000 } = options;
  return probe(new URL(url), await readTrust(bundles, ca), AbortSignal.timeout(milliseconds));
}

describe('a repository', () => {
  it.each([
    [200, null],
    [206, null],
    [304, 'answered 304'],
    [403, 'answered 403'],
    [503, 'answered 503'],
  ])('that answers %d is told as %j', async (status, expected) => {
    const { url, asked } = await serveTable({ '/a': [status] });
    expect(await ask(`${url}/a`)).toBe(expected);
    expect(asked).toEqual(['HEAD /a']);
  });

  it.each([405, 501])('that answers HEAD by %d is asked by GET', async (status) => {
    const { url, asked } = await serve((request, response) =>
      response.writeHead(request.method === 'HEAD' ? status : 200).end('x'.repeat(1 << 20)),
    );
    expect(await ask(url)).toBeNull();
    expect(asked).toEqual(['HEAD /', 'GET /']);
  });

  it('that takes the connection and says nothing does not answer in time', async () => {
    const { url } = await serve(() => {});
    expect(await ask(url, { milliseconds: 200 })).toBe('did not answer in time');
  });

  it.each([
    ['closes the connection', 'ECONNRESET', (socket: { destroy: () => void }) => socket.destroy()],
    ['speaks no http', 'HPE_INVALID_CONSTANT', (socket: { end: (text: string) => void }) => socket.end('hello\n')],
  ])('that %s could not be asked', async (_what, code, answer) => {
    const server = createTcpServer((socket) => {
      socket.on('error', () => {});
      answer(socket);
    });
    servers.push(server);
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    expect(await ask(`http://127.0.0.1:${(server.address() as AddressInfo).port}`)).toBe(
      `could not be asked (${code})`,
    );
  });
});

describe('a redirect', () => {
  it('is followed, relative or not, also to another server', async () => {
    const mirror = await serveTable({ '/mirror/a': [200] });
    const { url, asked } = await serveTable({
      '/x/a': [302, 'b'],
      '/x/b': [307, '/c'],
      '/c': [301, `${mirror.url}/mirror/a`],
    });
    expect(await ask(`${url}/x/a`)).toBeNull();
    expect([...asked, ...mirror.asked]).toEqual(['HEAD /x/a', 'HEAD /x/b', 'HEAD /c', 'HEAD /mirror/a']);
  });

  it.each([
    ['file:///etc/passwd', 'answered 302 and led nowhere'],
    ['http://', 'answered 302 and led nowhere'],
    ['', 'answered 302'],
    ['/a', 'led to another place more than 5 times'],
  ])('to %j is told as %j', async (location, expected) => {
    const { url } = await serveTable({ '/a': [302, location] });
    expect(await ask(`${url}/a`)).toBe(expected);
  });
});

describe('user and password', () => {
  const BASIC = `Basic ${Buffer.from('m@:50%').toString('base64')}`;

  it('are told to the server of the repository, also where it leads to another place of its own', async () => {
    const { url, asked } = await serve((request, response) =>
      request.url === '/a' ? response.writeHead(302, { location: `${url}/b` }).end() : response.end(),
    );
    expect(await ask(`${url.replace('//', '//m%40:50%25@')}/a`)).toBeNull();
    expect(asked).toEqual([`HEAD /a ${BASIC}`, `HEAD /b ${BASIC}`]);
  });

  it('are told to no other server', async () => {
    const mirror = await serveTable({ '/a': [200] });
    const { url } = await serveTable({ '/a': [302, `${mirror.url}/a`] });
    expect(await ask(`${url.replace('//', '//m%40:50%25@')}/a`)).toBeNull();
    expect(mirror.asked).toEqual(['HEAD /a']);
  });
});

describe('a certificate', () => {
  let directory: string;
  let cert: string;
  let url: string;

  beforeAll(async () => {
    directory = await mkdtemp(path.join(tmpdir(), 'ims-probe-'));
    const [keyFile, certFile] = ['key', 'crt'].map((name) => path.join(directory, name));
    const request =
      'req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=repository -addext subjectAltName=IP:127.0.0.1';
    execFileSync('openssl', [...request.split(' '), '-keyout', keyFile!, '-out', certFile!], { stdio: 'pipe' });
    cert = await readFile(certFile!, 'utf8');
  });
  beforeEach(async () => {
    const key = await readFile(path.join(directory, 'key'), 'utf8');
    const server = createHttpsServer({ cert, key }, (_request, response) => response.end());
    url = `https://127.0.0.1:${await listen(server)}`;
  });
  afterAll(() => rm(directory, { recursive: true, force: true }));

  it('that nobody has signed is told', async () => {
    expect(await ask(url)).toBe(
      'has a certificate that neither the site CA nor one that the machine trusts has signed',
    );
  });

  it('that the site CA has signed is taken', async () => {
    expect(await ask(url, { ca: cert })).toBeNull();
  });

  it('that the machine trusts is taken, beside the site CA', async () => {
    const bundle = path.join(directory, 'bundle.crt');
    await writeFile(bundle, `# a comment\n${cert}`);
    const missing = path.join(directory, 'missing.pem');
    expect(await ask(url, { bundles: [missing, bundle] })).toBeNull();
    expect(await ask(url, { bundles: [bundle], ca: cert })).toBeNull();
  });
});
