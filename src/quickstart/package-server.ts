import { createReadStream } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import path from 'node:path';

/** Packages that are served while nobody closes it. */
export interface PackageServer {
  /** Address of the repository. */
  url: string;
  close(): Promise<void>;
}

/** Serves the files of a directory on a free port of loopback, as repositories of a site are served. */
export async function servePackages(directory: string): Promise<PackageServer> {
  const server = createServer((request, response) => {
    const { pathname } = new URL(request.url ?? '/', 'http://localhost');
    // The parser of addresses resolves every `..`, so that none leads out of the directory; names of packages need no escapes.
    createReadStream(path.join(directory, pathname))
      .on('error', () => response.writeHead(404).end())
      .on('open', () => response.writeHead(200))
      .pipe(response);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    close: () => {
      server.closeAllConnections();
      return new Promise((resolve) => server.close(() => resolve()));
    },
  };
}
