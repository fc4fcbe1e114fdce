import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { json } from 'node:stream/consumers';
import { HttpImsClient } from '../../src/worker/ims-client.js';

let server: Server;
let bodies: unknown[];
let client: HttpImsClient;

beforeEach(async () => {
  bodies = [];
  server = createServer((request, response) => {
    void json(request).then((body) => {
      bodies.push(body);
      response.end(JSON.stringify({ id: 'a', status: 'error' }));
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  client = new HttpImsClient({ serverUrl: `http://127.0.0.1:${port}`, jobId: 'a' });
});
afterEach(() => new Promise((resolve) => server.close(resolve)));

it('a reason reaches the server as a record can hold it, whatever it quotes', async () => {
  await client.report({ status: 'error', status_reason: `a\0\u001B[31mb\uD83D ${'x'.repeat(9000)}` });
  expect(bodies).toEqual([{ status: 'error', status_reason: expect.stringMatching(/^ab\uFFFD x{3996}…$/) }]);
});

it('a report without a reason says nothing of one', async () => {
  await client.report({ status: 'error' });
  expect(bodies).toEqual([{ status: 'error' }]);
});
